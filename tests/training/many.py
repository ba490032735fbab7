"""What several processes do in `test_processes`; also run by one process, to compare with.

    accelerate launch … many.py MODEL FOLDER all|killed

Every process leaves what it saw in FOLDER/rank-R.pt.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from infalign.policies import CausalLM, LoRA
from infalign.prompts import Prompt
from infalign.protocols import Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Exponential
from infalign.training import CalibratedReward, Descent, Problem, Regression
from infalign.training.log_ratio_trainer import LogRatio, LogRatioTrainer, whole_weights

WORDS = ["tender", "lazy", "lush", "cliche", "story", "cast", "film", "excuse", "touching", "in"]
K = 4
# 10 prompts, 4 a step: steps cross the borders of epochs.
STEPS = Descent(6, 0.001, prompts_per_step=4, checkpoint_every=2, max_gradient_norm=1.0)
STOPPING = Descent(
    40, 0.001, prompts_per_step=4, target_kl=0.1, measure_every=2, measure_k=8, checkpoint_every=40
)
SOLVERS = {
    "accumulated": Regression(STEPS, prompts_per_pass=1),
    "at once": Regression(STEPS, prompts_per_pass=8),
    "stopped": Regression(STOPPING),
}


class Vowels:
    """A reward with a little noise of the text alone, so that ties are rare."""

    name = "vowels"

    def __call__(self, prompts, responses):
        return np.array(
            [
                [sum(c in "aeiou" for c in text) + 0.01 * (hash_of(text) % 97) for text in row]
                for row in responses
            ]
        )


def hash_of(text):
    return sum((place + 1) * ord(c) for place, c in enumerate(text))


def policy_of(model):
    """The tiny model of the tests, from its folder, with an adapter."""
    sampling = Sampling(temperature=0.8, max_new_tokens=4, stop=('"',))
    return CausalLM.from_pretrained(model, sampling, lora=LoRA(rank=4), dtype="float32")


def problem_of(policy, beta=0.5):
    prompts = [Prompt(f"id{place}", f"it is a {word}") for place, word in enumerate(WORDS)]
    texts = [prompt.text for prompt in prompts]
    rollouts = policy.sample(texts, K, np.random.default_rng(0))
    rewards = Vowels()(texts, [[response.text for response in row] for row in rollouts])
    calibration = EmpiricalCalibration(tuple(prompt.id for prompt in prompts), rewards)
    calibrated = CalibratedReward(Vowels(), calibration, Exponential(5.0))
    return Problem(prompts, calibrated, beta, rollouts)


def weights_of(policy):
    found = policy.module.named_parameters()
    return {name: p.detach().clone() for name, p in found if p.requires_grad}


def trained(model, solver, directory=None, callback=None, policy=None):
    """The result, and the weights it ended with."""
    policy = policy or policy_of(model)
    result = solver.train(
        policy,
        problem_of(policy_of(model)),
        directory=directory,
        callback=callback,
        rng=np.random.default_rng(1),
    )
    return result, weights_of(policy)


def everything(model, folder):
    """All that is asked of several processes, in one launch."""
    seen = {}
    for name, solver in SOLVERS.items():
        called = []
        result, weights = trained(model, solver, folder / name, lambda row: called.append(row))  # noqa: B023
        seen[name] = {
            "weights": weights,
            "rows": result.rows,
            "steps": result.steps,
            "stopped": result.stopped,
            "kept": [point.step for point in result.checkpoints],
            "called": [row["step"] for row in called],
        }
    if importlib.util.find_spec("trl"):
        for name in ("trl", "trl free"):
            seen[name] = by_trl(model, folder / name, is_forced=name == "trl")
    seen["resumed"] = {"weights": trained(model, SOLVERS["accumulated"], folder / "killed")[1]}
    seen["nowhere"] = {"weights": trained(model, SOLVERS["at once"])[1]}
    seen["sharded"] = sharded(model)
    seen["duplicated"] = {"weights": duplicated(model)}
    try:
        trained(model, Regression(Descent(2, 0.01, prompts_per_step=3)))
    except ValueError as error:
        seen["refused"] = str(error)
    return seen


def by_trl(model, directory, *, is_forced):
    """TRL's RLOO; its random numbers are each process's own, so responses may be forced on it."""
    from infalign.integrations.trl.solver import TRL

    policy, called = policy_of(model), []
    if is_forced:
        force_responses(policy)
    solver = TRL(Descent(4, 0.001, prompts_per_step=4, checkpoint_every=2), k=K)
    result, weights = trained(model, solver, directory, called.append, policy)
    return {
        "weights": weights,
        "rows": result.rows,
        "kept": [point.step for point in result.checkpoints],
        "called": [row["step"] for row in called],
    }


def force_responses(policy):
    """Response i to a prompt at step s is a function of prompt, i and s, in whichever process.

    In place of `generate` alone: TRL's batches, rewards, advantages, loss and updates are its own.
    """
    end, steps = policy.tokenizer.eos_token_id, iter(range(1000))

    def generate(input_ids, attention_mask, **_):
        step, answers = next(steps), []
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            prompt = ids[mask.bool()].tolist()
            rng = np.random.default_rng([step, row % K, *prompt])  # whole groups in each process
            answers.append([*rng.integers(3, 200, size=3).tolist(), end])
        return torch.cat([input_ids, torch.tensor(answers)], 1)

    policy.module.generate = generate


def moved_policy(model):
    """A policy whose adapter is not idle."""
    policy, rng = policy_of(model), np.random.default_rng(3)
    for name, parameter in policy.module.named_parameters():
        if "lora_B" in name:
            parameter.data += torch.from_numpy(rng.normal(0, 0.1, tuple(parameter.shape)))
    return policy


def sharded(model):
    """FSDP2, each process with some of every parameter: how far from whole ones."""
    rank, whole, parts = torch.distributed.get_rank(), moved_policy(model), moved_policy(model)
    problem = problem_of(policy_of(model)).select(range(rank, len(WORDS), 2))
    given, module = (problem.texts, problem.rollouts), LogRatio(parts)
    for layer in parts.body.layers:
        fully_shard(layer)
    fully_shard(module)
    register_fsdp_forward_method(module, "whole")
    expected, found = LogRatio(whole)(*given), module(*given)
    for log_prob in (expected, found):
        log_prob.square().mean().backward()
    apart = []
    names = [n for n, p in whole.module.named_parameters() if p.requires_grad]
    for name in names:
        mean = whole.module.get_parameter(name).grad
        torch.distributed.all_reduce(mean)
        gathered = parts.module.get_parameter(name).grad.full_tensor()
        apart.append(float((gathered - mean / 2).abs().max()))

    def draw(policy=parts):
        with torch.no_grad():
            return policy.sample(["it is a story"], 2, np.random.default_rng(5))

    return {
        "log_prob": float((found - expected).abs().max().detach()),
        "gradient": max(apart),
        "size": max(float(whole.module.get_parameter(n).grad.abs().max()) for n in names),
        "same samples": module.whole(draw) == draw(whole),
        "shards": type(parts.module.get_parameter(names[0])).__name__,
        "weights": apart_of(whole_weights(parts.module), weights_of(whole)),
    }


def apart_of(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in other)


def duplicated(model):
    """Negative control: every process works on the same prompts, none is dealt out."""
    dealt = LogRatioTrainer.get_train_dataloader

    def undealt(self):
        return torch.utils.data.DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=self.data_collator,
        )

    LogRatioTrainer.get_train_dataloader = undealt
    try:
        return trained(model, SOLVERS["at once"])[1]
    finally:
        LogRatioTrainer.get_train_dataloader = dealt


def killed(model, folder):
    """The second process is killed without a word in the middle of step 4."""
    policy = policy_of(model)
    score, calls = policy.differentiable_log_prob, []

    def dying(*given):
        calls.append(given)
        if os.environ["RANK"] == "1" and len(calls) == 9:  # two passes a step
            os.kill(os.getpid(), signal.SIGKILL)
        return score(*given)

    policy.differentiable_log_prob = dying
    trained(model, SOLVERS["accumulated"], folder / "killed", policy=policy)


def main(model, folder, what):
    torch.set_num_threads(1)
    if what == "killed":
        return killed(model, Path(folder))
    seen = everything(model, Path(folder))
    torch.save(seen, Path(folder) / f"rank-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
