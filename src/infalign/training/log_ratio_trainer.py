"""`transformers.Trainer` for a loss on log(π/π_ref): its public API, loss and collator ours.

Loaded only by :mod:`infalign.training.regression`, because it loads torch and transformers.
"""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from infalign.training import checkpoints, processes
from infalign.training.descent import Descent
from infalign.training.solver import Callback, Row

__all__ = ["InOrder", "Journal", "LogRatio", "LogRatioTrainer", "collate", "go_on", "rows_of"]


_WITHIN = "policy_module."


class LogRatio(torch.nn.Module):
    """A policy as a module whose forward pass is log π(y|x): what engines can wrap.

    Only trainable weights are its state, so a checkpoint of an adapter does not hold the model.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy_module = policy.module
        self._log_prob = policy.differentiable_log_prob
        # Where accelerate looks for the names of the blocks to shard one by one.
        found = (getattr(part, "_no_split_modules", None) for part in policy.module.modules())
        self._no_split_modules = sorted(next(filter(None, found), ()))

    def forward(self, prompts: Sequence[str], responses: Sequence[Any]) -> torch.Tensor:
        """log π(y|x), "P K", in nats."""
        # A tensor of its own: a wrapper's hooks would not survive what is done to a view in place.
        return self._log_prob(prompts, responses).clone()

    def whole(self, function: Callable[[], Any]) -> Any:
        """What `function` says of the policy while its weights are at hand, sharded or not.

        The policy asks its body and head itself, past this module's `forward`. A wrapper that
        gathers weights for `forward` is told to gather them for this method too; every process
        must then call it with a function that does the same in each.
        """
        return function()

    def train(self, mode: bool = True) -> "LogRatio":
        """Leaves the policy as it is: dropout would make π another law than the one sampled."""
        return self

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Trainable weights only, by their names in this module."""
        weights = checkpoints.trainable_weights(self.policy_module)
        return {_WITHIN + name: weight for name, weight in weights.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Takes them back; a wrapper may hand over the frozen ones as well."""
        given = {name.removeprefix(_WITHIN): weight for name, weight in state_dict.items()}
        own = {name for name, p in self.policy_module.named_parameters() if p.requires_grad}
        weights = {name: weight for name, weight in given.items() if name in own}
        checkpoints.put_weights(self.policy_module, weights)
        return torch.nn.modules.module._IncompatibleKeys([], [])


def whole_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Trainable weights with all their parts, on whichever process these are; all must ask."""
    with _gathered([p for p in module.parameters() if p.requires_grad]):
        weights = checkpoints.trainable_weights(module)
    return {
        name: weight.full_tensor() if isinstance(weight, DTensor) else weight
        for name, weight in weights.items()
    }


def _gathered(parameters: Sequence[torch.nn.Parameter]) -> contextlib.AbstractContextManager[Any]:
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):  # DeepSpeed's ZeRO-3
        return contextlib.nullcontext()
    import deepspeed  # pyright: ignore[reportMissingImports]

    return deepspeed.zero.GatheredParameters(parameters)


class InOrder:
    """The rows of every step, one step after the other, in the order of :meth:`Descent.batch`.

    Laid out before training, so how many processes read it, and in passes of which size, does not
    move a prompt into another step.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], descent: Descent, seed: int) -> None:
        self._rows, self._steps = rows, descent.steps
        self._batch = functools.lru_cache(maxsize=4)(
            functools.partial(descent.batch, prompts=len(rows), seed=seed)
        )
        self._per_step = len(self._batch(0))

    def __len__(self) -> int:
        return self._steps * self._per_step

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        step, within = divmod(place, self._per_step)
        return self._rows[self._batch(step)[within]]


class LogRatioTrainer(transformers.Trainer):
    """Least squares of log(π/π_ref) against its known target."""

    loss_is_scaled_for_ga = False

    def get_train_dataloader(self) -> Any:
        """Passes in the dataset's own order; `prepare` deals them out to the processes in turn."""
        size = self.args.per_device_train_batch_size
        loader: Any = torch.utils.data.DataLoader(
            self.train_dataset,  # pyright: ignore[reportArgumentType]
            batch_size=size,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)

    @property
    def is_sharded(self) -> bool:
        """Whether no process has all the weights while it trains."""
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        return self.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over prompts and rollouts of (target − log π + log π_ref)², nats²."""
        log_prob = model(inputs["prompts"], inputs["responses"])
        wanted = inputs["wanted"].to(device=log_prob.device, dtype=log_prob.dtype)
        loss = (wanted - log_prob).square().mean()
        return (loss, log_prob) if return_outputs else loss


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One prompt with all its rollouts per row; `wanted` is log π_ref + target."""
    return {
        "prompts": [row["prompt"] for row in rows],
        "responses": [row["responses"] for row in rows],
        "wanted": torch.as_tensor(np.array([row["wanted"] for row in rows])),
    }


class Journal(transformers.TrainerCallback):
    """Keeps the log, measures now and then, stops at a target KL, marks finished checkpoints.

    Every process has one; only that of the main process measures, writes and calls back.
    """

    def __init__(
        self,
        trainer: LogRatioTrainer,
        module: torch.nn.Module,
        directory: Path,
        measure: Callable[[int], Row],
        descent: Descent,
        callback: Callback | None,
    ) -> None:
        self.trainer, self.directory, self.measure = trainer, directory, measure
        self.module, self.descent, self.callback = module, descent, callback
        self.is_main = trainer.is_world_process_zero()
        self.stopped = "steps"

    def on_train_begin(self, args, state, control, **options):
        if isinstance(self.trainer.model, FSDPModule):
            register_fsdp_forward_method(
                self.trainer.model,  # pyright: ignore[reportArgumentType]  it is a module as well
                "whole",
            )
        self._write(state)
        if state.global_step == 0:
            self._measure(state, control)

    def on_log(self, args, state, control, logs=None, **options):
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss at step {state.global_step - 1} is {loss}; lower the learning rate, or "
                "train in float32. The last checkpoint is intact."
            )
        self._write(state)
        if self.callback is not None and self.is_main:
            self.callback(rows_of(state.log_history)[-1])

    def on_step_end(self, args, state, control, **options):
        if state.global_step < state.max_steps:
            self._measure(state, control)

    def on_save(self, args, state, control, **options):
        # Written last, after every process's part: a checkpoint folder without it was interrupted.
        self.trainer.accelerator.wait_for_everyone()
        weights = whole_weights(self.module)
        if self.is_main:
            checkpoints.save(checkpoints.weights_path(self.directory, state.global_step), weights)

    def _measure(self, state, control) -> None:
        if not self.descent.measures_at(state.global_step):
            return
        # Measured once and told to all, so that all stop or none: a hair's breadth of difference
        # between processes would leave some waiting for ever.
        row = None
        if self.trainer.is_sharded:  # nobody can do it alone
            measure = functools.partial(self.measure, state.global_step)
            row = self.trainer.accelerator.unwrap_model(self.trainer.model).whole(measure)
        elif self.is_main:
            row = self.measure(state.global_step)
        row = processes.same_everywhere(row)
        state.log_history.append({**row, "step": state.global_step, "measured": True})
        if self._reached(row):
            self.stopped = "target_kl"
            control.should_training_stop = control.should_save = True

    def _reached(self, row: Mapping[str, Any]) -> bool:
        target = self.descent.target_kl
        return target is not None and row.get("kl", -math.inf) >= target

    def is_over(self, state: transformers.TrainerState, steps: int) -> bool:
        """Whether a run in this state has nothing left to do."""
        if any(map(self._reached, rows_of(state.log_history))):
            self.stopped = "target_kl"
        return self.stopped == "target_kl" or state.global_step >= steps

    def _write(self, state) -> None:
        if not self.is_main:
            return
        lines = "".join(json.dumps(row) + "\n" for row in rows_of(state.log_history))
        (self.directory / "log.jsonl").write_text(lines, encoding="utf-8")


def go_on(trainer: LogRatioTrainer, journal: Journal, folder: Path | None) -> None:
    """Trains from the checkpoint in `folder`, from the start without one, or not if all is done."""
    if folder is not None:
        state = str(folder / "trainer_state.json")
        trainer.state = transformers.TrainerState.load_from_json(state)
    if not journal.is_over(trainer.state, trainer.args.max_steps):
        if folder is not None:
            processes.refuse_other_sharding(folder)
        trainer.train(resume_from_checkpoint=None if folder is None else str(folder))
    elif folder is not None:
        path = checkpoints.weights_path(journal.directory, trainer.state.global_step)
        checkpoints.load_weights(journal.module, path)


def rows_of(history: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows as other solvers keep them: row s describes the policy after s updates."""
    rows: dict[int, Row] = {}
    for entry in history:
        if entry.get("measured"):
            step = int(entry["step"])
            new = {key: value for key, value in entry.items() if key not in ("step", "measured")}
        elif "loss" in entry:
            step = int(entry["step"]) - 1  # the Trainer counts the update that the loss led to
            new = {"loss": entry["loss"], "rate": entry["learning_rate"]}
            new["gradient_norm"] = entry["grad_norm"]
        else:
            continue
        rows.setdefault(step, {"step": step}).update(new)
    return [rows[step] for step in sorted(rows)]
