"""What happens to a TRL run on the way: rows of the log, checkpoints of the house, early stop."""

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from infalign.integrations.trl.rules import Law
from infalign.rollouts.shards import write_atomically
from infalign.training import checkpoints
from infalign.training.descent import Descent
from infalign.training.solver import Callback, Checkpoint, Problem, Row, TrainingResult

if TYPE_CHECKING:
    import torch

    from infalign.integrations.trl.solver import TRL

__all__ = ["Following", "Record"]

STATE = "state.json"


class Record:
    """What of a run is finished, on disk: written after what it speaks of, so it is always true."""

    def __init__(self, directory: Path | None, identity: Mapping[str, Any]) -> None:
        self.directory = directory
        self.identity = checkpoints.identity_text(identity)
        self.step, self.stopped = 0, ""
        self.saved: list[int] = []
        self.rows: list[Row] = []
        self.before, self._began = 0.0, time.monotonic()
        path = None if directory is None else directory / STATE
        if path is not None and path.exists():
            state = json.loads(path.read_text(encoding="utf-8"))
            checkpoints.refuse_other_run(path.parent, state["identity"], identity)
            self.step, self.saved, self.stopped = state["step"], state["saved"], state["stopped"]
            self.rows, self.before = state["rows"], state["seconds"]

    @property
    def seconds(self) -> float:
        """Wall time over all sittings."""
        return self.before + time.monotonic() - self._began

    def is_done(self, descent: Descent) -> bool:
        """Whether nothing is left to do."""
        return self.stopped == "target_kl" or self.step >= descent.steps

    def resume_from(self) -> str | None:
        """TRL's last finished checkpoint; what was begun after it is cleared away."""
        if self.directory is None:
            return None
        home = self.directory / "trl"
        if is_main_process():
            for folder in home.glob("checkpoint-*"):
                if int(folder.name.rpartition("-")[2]) > self.step:
                    shutil.rmtree(folder)
            lines = "".join(json.dumps(row) + "\n" for row in self.rows)
            write_atomically(self.directory / "log.jsonl", lines.encode(), self.directory)
        return str(home / f"checkpoint-{self.step}") if self.step else None

    def keep(self, module: "torch.nn.Module", step: int) -> None:
        """The weights after `step` updates, and that the run has come so far."""
        self.step = step
        if self.directory is None or not is_main_process():
            return
        if step not in self.saved:
            path = checkpoints.weights_path(self.directory, step)
            checkpoints.save(path, checkpoints.trainable_weights(module))
            self.saved.append(step)
        state = {
            "identity": self.identity,
            "step": step,
            "saved": self.saved,
            "stopped": self.stopped,
            "rows": [row for row in self.rows if row["step"] < step or self.stopped],
            "seconds": self.seconds,
        }
        write_atomically(self.directory / STATE, json.dumps(state).encode(), self.directory)

    def finish(self, module: "torch.nn.Module", stopped: str) -> None:
        """That nothing is left to do; TRL's own checkpoints stay for a longer run."""
        self.stopped = stopped or "steps"
        self.keep(module, len(self.rows) - (stopped == "target_kl"))

    def put_last_weights(self, module: "torch.nn.Module") -> None:
        """The weights at the end of a run that is done."""
        if self.step:
            checkpoints.load_weights(module, self._weights(self.step))

    def log(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        if self.directory is not None and is_main_process():
            with (self.directory / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def result(self) -> TrainingResult:
        """What the run did."""
        paths = [] if self.directory is None else [self._weights(step) for step in self.saved]
        points = tuple(map(Checkpoint, self.saved, paths))
        return TrainingResult(self.rows, self.step, self.stopped, points, self.seconds)

    def _weights(self, step: int) -> Path:
        assert self.directory is not None
        return checkpoints.weights_path(self.directory, step)


class Following(TrainerCallback):
    """Turns TRL's log into rows, its saves into checkpoints, and stops at a KL."""

    def __init__(
        self,
        solver: "TRL",
        problem: Problem,
        record: Record,
        callback: Callback | None,
        module: "torch.nn.Module",
    ) -> None:
        self._solver, self._beta, self._record = solver, problem.beta, record
        self._callback, self._module = callback, module
        self._before: dict[str, Any] | None = None
        self.stopped = ""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the weights the step's responses are sampled from."""
        if self._solver.descent.target_kl is not None:
            self._before = checkpoints.trainable_weights(self._module)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """One row for each update."""
        if logs is None or "kl" not in logs or self.stopped:
            return
        row = self._row(state.global_step, logs, Law(self._beta, 1.0, args.max_completion_length))
        if not math.isfinite(row["gradient_norm"]):
            raise FloatingPointError(
                f"the gradient at step {row['step']} is {row['gradient_norm']}; lower the learning "
                "rate, or train in float32. The last checkpoint is intact."
            )
        target = self._solver.descent.target_kl
        if target is not None and row["kl"] >= target:
            assert self._before is not None
            checkpoints.put_weights(self._module, self._before)
            del row["gradient_norm"]  # of an update that is undone
            self.stopped = "target_kl"
            control.should_training_stop = True
        self._record.log(row)
        if self._callback is not None:
            self._callback(row)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """TRL has written a checkpoint: write the weights beside it, and that both are there."""
        if not self.stopped:
            self._record.keep(self._module, state.global_step)

    def _row(self, step: int, logs: Mapping[str, Any], law: Law) -> Row:
        told = {key.removeprefix("row/"): logs[key] for key in logs if key.startswith("row/")}
        # A mean over tokens; ours is a sum. Exact where that mean is over all tokens of the step,
        # which it is not in GRPO's several passes: these are not stopped at a KL.
        kl = logs["kl"] * logs["completions/mean_length"]
        gap = told.pop("log_partition") - told["training_reward"] / self._beta + kl
        return {
            "step": step - 1,
            "rate": logs["learning_rate"],
            "kl": kl,
            **told,
            "gap": gap,
            "gradient_norm": logs["grad_norm"] / self._solver.loss_scale(law),
            "seconds": self._record.seconds,
        }


def is_main_process() -> bool:
    """Whether this process writes the files of a run on several."""
    return os.environ.get("RANK", "0") == "0"
