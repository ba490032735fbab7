"""TRL's trainers as a solver of the house: same problem, same policy, same folder of checkpoints.

Nothing of TRL is overridden. What it is given: the policy's own model with its adapter (switched
off, it is the reference; there is no second copy), a reward function that asks the problem's
training reward, prompts in the order of the built-in solvers as one long epoch, and a callback.
"""

import contextlib
import copy
import dataclasses
import importlib.util
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from infalign.integrations.trl.configs import grpo_config, import_trl, rloo_config
from infalign.integrations.trl.following import Following, Record
from infalign.integrations.trl.rules import Law
from infalign.integrations.trl.sampling import hold_to_law, prompts_for_trl
from infalign.prompts import Prompt
from infalign.training.descent import Descent, identifying, identity_of
from infalign.training.measure import watched_win_rate
from infalign.training.processes import refuse_environment, started
from infalign.training.solver import Callback, Problem, Solver, TrainingResult

__all__ = ["TRL"]


@final
@dataclasses.dataclass(frozen=True)
class TRL(Solver):
    """TRL's RLOOTrainer or GRPOTrainer on E_π[Φ] − β·KL(π‖π_ref). Needs a CausalLM with an adapter.

    `rloo` has the optimum and, up to the factor β, the gradient of :class:`Online` with `k1`; its
    random numbers are TRL's. `grpo` ends elsewhere for responses of several tokens, see
    :mod:`.configs`. Under `accelerate launch` each process samples its share of a step's responses.

    A run that was stopped goes on from its last checkpoint. The rate's warm-up starts at zero, one
    step lower than the built-in solvers'. `target_kl` undoes the update after the measurement that
    reached it, so that the policy is the measured one.

    The log's `kl` is that of the step's responses. From GRPO in several passes it is a mean of
    passes, each over its tokens, times the mean length: near it, so `target_kl` is refused there.
    """

    descent: Descent = dataclasses.field(default_factory=Descent)
    """How steps are taken; `max_gradient_norm` is that of the loss in nats."""
    k: int = 8
    """Responses sampled to each prompt in each step. ≥ 2."""
    trainer: Literal["rloo", "grpo"] = "rloo"
    """Which of TRL's."""
    prompts_per_pass: int = 8
    """Prompts in one forward and backward pass: memory, not mathematics."""

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(
                f"k is {self.k}; a group's baseline needs at least 2 responses per prompt."
            )
        if importlib.util.find_spec("trl") is None:
            raise ImportError(
                "engine 'trl' needs the library trl; install it: pip install 'infalign[trl]', or "
                "choose engine 'builtin'."
            )

    def check(self, policy: Any, prompts: Sequence[Prompt]) -> None:
        _require_peft(policy)
        self._refuse_inexact_stop(*self._batches(len(prompts)))
        prompts_for_trl(prompts, policy.tokenizer)

    def train(
        self,
        policy: Any,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        _require_peft(policy)
        _require_whole_weights()
        seed = int(rng.integers(2**62))
        identity = {**identity_of(problem, seed), "solver": "trl", **identifying(self)}
        record = Record(directory, identity)
        if record.is_done(self.descent):
            record.put_last_weights(policy.module)
            record.finish(policy.module, record.stopped)
            return record.result()
        self._refuse_inexact_stop(*self._batches(len(problem.prompts)))
        with _lent(policy), contextlib.ExitStack() as stack:
            home = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            follower = Following(self, problem, record, callback, policy.module)
            trainer = self._trainer(policy, problem, home / "trl", seed, follower)
            trainer.train(resume_from_checkpoint=record.resume_from())
            trainer.accelerator.wait_for_everyone()
        record.finish(policy.module, follower.stopped)
        return record.result()

    def _trainer(
        self, policy: Any, problem: Problem, home: Path, seed: int, follower: Following
    ) -> Any:
        from transformers import PrinterCallback

        trl = import_trl()
        tokenizer = copy.deepcopy(policy.tokenizer)  # TRL sets its padding
        model = policy.module
        law = Law(problem.beta, policy.sampling.temperature, policy.sampling.max_new_tokens)
        hold_to_law(model.get_base_model(), tokenizer, _with_stop(law, policy))
        config = self._config(law, home, seed, len(problem.prompts), policy.device.type == "cpu")
        kind = trl.RLOOTrainer if self.trainer == "rloo" else trl.GRPOTrainer
        trainer = kind(
            model=model,
            reward_funcs=_Asked(problem, policy, self.k),
            args=config,
            train_dataset=self._dataset(problem, tokenizer, seed),
            processing_class=tokenizer,
            callbacks=[follower],
        )
        # TRL takes the adapter as it is now for the reference and keeps a copy. The reference is
        # the model without any, also where training goes on; without the copy TRL uses just that.
        model.delete_adapter("ref")
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _dataset(self, problem: Problem, tokenizer: Any, seed: int) -> Any:
        """The prompts of all steps in order: one epoch, in which resuming is but skipping."""
        from datasets import Dataset

        texts = prompts_for_trl(problem.prompts, tokenizer)
        prompts = Dataset.from_dict({"prompt": texts, "prompt_id": problem.ids})
        count = len(problem.prompts)
        steps = (self.descent.batch(step, count, seed) for step in range(self.descent.steps))
        return prompts.select([row for step in steps for row in step])

    def _config(self, law: Law, home: Path, seed: int, prompts: int, on_cpu: bool) -> Any:
        descent = self.descent
        rows, passes = self._batches(prompts)
        schedule: str = descent.schedule
        if schedule == "constant" and descent.warmup:
            schedule = "constant_with_warmup"
        limit = descent.max_gradient_norm
        make = rloo_config if self.trainer == "rloo" else grpo_config
        return make(
            law,
            output_dir=str(home),
            max_steps=descent.steps,
            num_generations=self.k,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=passes,
            learning_rate=descent.learning_rate,
            lr_scheduler_type=schedule,
            warmup_steps=descent.warmup,
            adam_beta1=descent.betas[0],
            adam_beta2=descent.betas[1],
            weight_decay=descent.weight_decay,
            max_grad_norm=0.0 if limit is None else limit * self.loss_scale(law),
            optim="adamw_torch",
            seed=seed % 2**31,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=on_cpu,
            logging_steps=1,
            save_strategy="steps",
            save_steps=descent.checkpoint_every or descent.steps,
            save_total_limit=2,  # the last finished one outlives the writing of the next
            report_to="none",
            disable_tqdm=True,
        )

    def loss_scale(self, law: Law) -> float:
        """TRL's loss over ours, which is in nats and summed over a response's tokens."""
        if self.trainer == "rloo":
            return law.beta
        return law.beta * (self.k - 1) / self.k / law.max_new_tokens

    def _batches(self, prompts: int) -> tuple[int, int]:
        """Rows of one pass on one process, and passes in a step."""
        prompts = min(self.descent.prompts_per_step or prompts, prompts)
        processes = started()
        rows, rest = divmod(prompts * self.k, processes)
        if rest:
            raise ValueError(
                f"a step has prompts_per_step = {prompts} prompts with samples_per_prompt = "
                f"{self.k} responses each, which {processes} processes cannot share evenly; a "
                f"product that {processes} divides is needed, or other processes."
            )
        largest = min(rows, self.prompts_per_pass * self.k)
        size = next(n for n in range(largest, 0, -1) if rows % n == 0)
        return size, rows // size

    def _refuse_inexact_stop(self, rows: int, passes: int) -> None:
        """Refuse to stop at a KL that TRL does not tell."""
        if self.descent.target_kl is not None and self.trainer == "grpo" and passes > 1:
            raise ValueError(
                f"prompts_per_pass is {self.prompts_per_pass}, {passes} passes a step, and GRPO "
                "tells the KL of each without its number of tokens; stop_at_kl needs "
                f"{-(-rows * passes // self.k)} or more here, or trainer rloo."
            )


class _Asked:
    """The problem's training reward as TRL calls one; what it says is logged for the rows."""

    def __init__(self, problem: Problem, policy: Any, k: int) -> None:
        self._problem, self._text, self._k = problem, policy.codec.text, k
        self._rows = {prompt.id: row for row, prompt in enumerate(problem.prompts)}
        self.__name__ = "training_reward"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        *,
        prompt_id: Sequence[str],
        log_metric: Any,
        **_: Any,
    ) -> list[float]:
        rows = [self._rows[one] for one in prompt_id]
        batch = self._problem.select(rows)
        texts = [[self._text(ids)] for ids in completion_ids]
        scored = batch.rewards.score(batch.ids, batch.texts, texts)
        log_metric("row/training_reward", float(scored.training_rewards.mean()))
        log_metric("row/reward", float(scored.rewards.mean()))
        log_partition = batch.rewards.log_partition(batch.beta, batch.ids)
        log_metric("row/log_partition", float(log_partition.mean()))
        if scored.quantiles is not None:
            log_metric("row/quantile", float(scored.quantiles.mean()))
            for name, value in self._win_rate(scored, prompt_id).items():
                log_metric(f"row/{name}", float(value))
        return scored.training_rewards[:, 0].tolist()

    def _win_rate(self, scored: Any, prompt_id: Sequence[str]) -> dict[str, float]:
        """From whole groups only: processes may share one."""
        groups = [prompt_id[i : i + self._k] for i in range(0, len(prompt_id), self._k)]
        if any(len(group) < self._k or len(set(group)) > 1 for group in groups):
            return {}
        quantiles, rewards = (
            values.reshape(-1, self._k) for values in (scored.quantiles, scored.rewards)
        )
        return watched_win_rate(rewards, quantiles, self._problem.procedure)


def _with_stop(law: Law, policy: Any) -> Law:
    return dataclasses.replace(law, stop=policy.sampling.stop)


def _require_peft(policy: Any) -> None:
    lacking = [name for name in ("tokenizer", "codec", "sampling") if not hasattr(policy, name)]
    if lacking or not hasattr(policy.module, "get_base_model"):
        raise TypeError(
            f"{type(policy).__name__} is no CausalLM with an adapter; TRL trains the adapter and "
            "takes the model without it for the reference. Load it with lora=LoRA(...), or choose "
            "a built-in solver."
        )


def _require_whole_weights() -> None:
    """Refuse accelerate's settings under which a process has but a part of the weights."""
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    if sharded or stage == "3":
        found = "FSDP" if sharded else "DeepSpeed's ZeRO-3"
        raise ValueError(
            f"accelerate was started with {found}, but this engine's checkpoints hold the weights "
            "of one process; data parallel (ddp) or ZeRO-2 is needed. Or shard with TRL's own "
            "command on what `infalign export trl` writes."
        )
    refuse_environment()


@contextlib.contextmanager
def _lent(policy: Any) -> Iterator[None]:
    """Lends the model to TRL, and puts back what it changes beside the adapter's weights."""
    import torch

    base = policy.module.get_base_model()
    config = base.config.get_text_config()
    before = base.generation_config, config.pad_token_id
    forward = {name: value for name, value in vars(base).items() if name == "forward"}
    states = random.getstate(), np.random.get_state()
    devices = [policy.device] if policy.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        base.generation_config, config.pad_token_id = before
        vars(base).pop("forward", None)  # TRL's own way to log-probabilities
        vars(base).update(forward)
        if "ref" in policy.module.peft_config:
            policy.module.delete_adapter("ref")
        policy.module.eval()
