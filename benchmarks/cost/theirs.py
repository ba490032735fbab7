"""Steps of TRL's RLOO and DPO trainers on the same module, tokens and training reward."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.cost.ours import DPO_BETA, RATE, worst_and_best
from infalign.integrations.trl import Law, hold_to_law, prompts_for_trl, rloo_config
from infalign.policies import CausalLM
from infalign.training import Problem

__all__ = ["run"]


def run(
    name: str,
    policy: CausalLM,
    problem: Problem,
    steps: int,
    paused: Callable,
    shake: Callable[[], None],
) -> None:
    """Trains for some steps; calls `paused` after each with the tokens it trained on.

    Args:
        name: `trl-rloo` or `trl-dpo`, perhaps with `-sampled` (answers are drawn in each step, by
            `generate`), `-cached` (TRL computes reference log-probabilities once, beforehand) or
            `-checkpointed` (its default: activations are computed twice, to save memory).
        shake: moves the adapter, once TRL has what it wants of the reference.
    """
    import transformers
    import transformers.utils.logging as logging

    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _, kind, variant = (*name.split("-"), "")[:3]
    with tempfile.TemporaryDirectory() as folder:
        common = _common(folder, steps, checkpointed=variant == "checkpointed")
        make = _rloo if kind == "rloo" else _dpo
        trainer, counted = make(policy, problem, steps, common, variant)
        # TRL keeps a copy of the adapter for the reference; without it the reference is the model
        # with the adapter off, which is cheaper, and what TRL does with an adapter of its making.
        policy.module.delete_adapter("ref")  # type: ignore[operator]
        shake()

        class Turn(transformers.TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                paused(counted())

        trainer.add_callback(Turn())
        trainer.remove_callback(transformers.PrinterCallback)
        with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results
            trainer.train()


def _common(folder: str, steps: int, *, checkpointed: bool) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch",
        "gradient_checkpointing": checkpointed,
        "bf16": False,  # the body has its dtype already
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def _rloo(
    policy: CausalLM, problem: Problem, steps: int, common: dict[str, Any], variant: str
) -> tuple[Any, Callable[[], int]]:
    import trl
    from datasets import Dataset

    model, tokenizer = policy.module, policy.tokenizer
    law = Law(problem.beta, policy.sampling.temperature, policy.sampling.max_new_tokens)
    hold_to_law(model.get_base_model(), tokenizer, law)  # type: ignore[operator]
    k, count = len(problem.stored()[0]), [0]
    given = {
        policy.codec.encode(p): row for p, row in zip(problem.texts, problem.stored(), strict=True)
    }

    class Trainer(trl.RLOOTrainer):
        """Counts tokens; and answers from the store, unless it is to draw."""

        def _generate_single_turn(self, prompt_ids: Any, *more: Any) -> Any:
            if variant == "sampled":
                found = super()._generate_single_turn(prompt_ids, *more)
            else:
                seen: dict[Any, int] = {}
                found = [_next(given, seen, tuple(ids)) for ids in prompt_ids]
            count[0] = sum(map(len, found))
            return found

    rows = {"prompt": prompts_for_trl(problem.prompts, tokenizer), "prompt_id": problem.ids}
    data = Dataset.from_dict(rows)
    trainer = Trainer(
        model=model,
        reward_funcs=_asked(problem, policy),
        args=rloo_config(
            law,
            num_generations=k,
            per_device_train_batch_size=k * len(problem.prompts),
            gradient_accumulation_steps=1,
            shuffle_dataset=False,
            **common,
        ),
        train_dataset=data.select(list(range(len(data))) * steps),
        processing_class=tokenizer,
    )
    return trainer, lambda: count[0]


def _next(given: dict[Any, Any], seen: dict[Any, int], prompt: tuple[int, ...]) -> list[int]:
    place = seen[prompt] = seen.get(prompt, -1) + 1
    return list(given[prompt][place].token_ids)


def _asked(problem: Problem, policy: CausalLM) -> Callable[..., list[float]]:
    rows = {prompt.id: row for row, prompt in enumerate(problem.prompts)}

    def training_reward(
        *, completion_ids: Sequence[Any], prompt_id: Sequence[str], **_: Any
    ) -> list[float]:
        batch = problem.select([rows[one] for one in prompt_id])
        texts = [[policy.codec.text(tuple(ids))] for ids in completion_ids]
        return batch.rewards.score(batch.ids, batch.texts, texts).training_rewards[:, 0].tolist()

    return training_reward


def _dpo(
    policy: CausalLM, problem: Problem, steps: int, common: dict[str, Any], variant: str
) -> tuple[Any, Callable[[], int]]:
    import trl
    from datasets import Dataset

    class Trainer(trl.DPOTrainer):
        """Takes tokens as they are; from text, TRL would end answers that the cap cut off."""

        def _prepare_dataset(self, dataset: Any, *more: Any) -> Any:
            return dataset

    pairs = _pairs(policy, problem)
    data = Dataset.from_list(pairs)
    count = sum(len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs)
    trainer = Trainer(
        model=policy.module,
        args=trl.DPOConfig(
            beta=DPO_BETA,
            per_device_train_batch_size=len(pairs),
            max_length=None,
            precompute_ref_log_probs=variant == "cached",
            num_train_epochs=steps,
            **common,
        ),
        train_dataset=data,
        processing_class=policy.tokenizer,
    )
    return trainer, lambda: count


def _pairs(policy: CausalLM, problem: Problem) -> list[dict[str, list[int]]]:
    found = []
    worse, better = worst_and_best(problem)
    for row, (text, answers) in enumerate(zip(problem.texts, problem.stored(), strict=True)):
        for low, high in np.stack([worse[row], better[row]], 1):
            found.append(
                {
                    "prompt_ids": list(policy.codec.encode(text)),
                    "chosen_ids": list(answers[high].token_ids),
                    "rejected_ids": list(answers[low].token_ids),
                }
            )
    return found
