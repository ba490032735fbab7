"""The loop around a gradient: AdamW, schedule, log, checkpoints, resume, early stop.

A solver hands over one function, which measures the policy on some prompts and leaves the
gradient of its loss in the parameters. Step s draws its randomness from (seed, s) alone, so a
resumed run needs no generator state to continue exactly.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from infalign.training import checkpoints
from infalign.training.processes import refuse_several
from infalign.training.solver import Callback, Checkpoint, Problem, Row, TrainingResult

if TYPE_CHECKING:
    import torch

__all__ = ["Descent", "descend", "identifying", "identity_of", "numpy_of", "passes"]

Accumulate = Callable[[Problem, np.random.Generator], Row]
"""Leaves the gradient of the loss in the parameters; returns the row's measurements."""


@final
@dataclasses.dataclass(frozen=True)
class Descent:
    """How steps are taken. Losses are in nats (Φ/β − KL), whatever Φ's scale."""

    steps: int = 100
    """Updates to make. ≥ 0."""
    learning_rate: float = 1e-3
    """AdamW's. > 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls to zero after warm-up, if it does."""
    warmup: int = 0
    """Steps over which the rate rises linearly from zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates."""
    weight_decay: float = 0.0
    """AdamW's. The KL term already pulls towards the reference."""
    max_gradient_norm: float | None = None
    """Longer gradients are shortened to this; None: never."""
    prompts_per_step: int | None = None
    """Prompts in one step, drawn without replacement in epochs; None: all."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only at the end."""
    target_kl: float | None = None
    """Stop before the first update at which the measured KL has reached this. Nats."""
    measure_every: int = 0
    """Steps between measurements on samples of the policy, for solvers that do not sample anyway;
    0: never. `kl` and `win_rate` of their logs come from here."""
    measure_k: int = 8
    """Responses sampled to each prompt of the step for a measurement."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be > 0.")
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; it must be 0 or more.")

    def rate(self, step: int) -> float:
        """Learning rate of the update after `step` updates.

        Example:
            >>> Descent(steps=4, learning_rate=1.0, schedule="linear").rate(3)
            0.25
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        falling = {
            "constant": 1.0,
            "linear": 1.0 - done,
            "cosine": (1.0 + math.cos(math.pi * done)) / 2,
        }
        return self.learning_rate * falling[self.schedule]

    def batch(self, step: int, prompts: int, seed: int) -> Sequence[int]:
        """Rows of the prompts of a step: a fresh shuffle every epoch, no prompt left out."""
        size = self.prompts_per_step
        if size is None or size >= prompts:
            return range(prompts)
        positions = np.arange(step * size, (step + 1) * size)
        epochs = range(positions[0] // prompts, positions[-1] // prompts + 1)
        # The 1 keeps these draws apart from those of step `epoch`, which use (seed, 0, step).
        order = [np.random.default_rng([seed, 1, epoch]).permutation(prompts) for epoch in epochs]
        return np.concatenate(order)[positions - epochs[0] * prompts].tolist()

    def measures_at(self, step: int) -> bool:
        """Whether a solver that does not sample measures after `step` updates."""
        return self.measure_every > 0 and step % self.measure_every == 0

    def refuse_blind_stop(self) -> None:
        """Raises ValueError where `target_kl` is set but nothing would ever measure the KL."""
        if self.target_kl is not None and self.measure_every == 0:
            raise ValueError(
                f"target_kl is {self.target_kl}, but this solver takes no samples of the policy, "
                "so it never sees its KL; set measure_every to measure it now and then."
            )


class _Run:
    """A run under way: what a checkpoint holds."""

    def __init__(
        self,
        descent: Descent,
        module: "torch.nn.Module",
        directory: Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        import torch

        checkpoints.trainable_weights(module)  # refuse a frozen policy before any work
        self.descent, self.module, self.directory = descent, module, directory
        self.identity = identity
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=descent.learning_rate,
            betas=descent.betas,
            weight_decay=descent.weight_decay,
        )
        self.step = 0
        self.rows: list[Row] = []
        self.saved: list[int] = []
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._resume(directory)

    def _resume(self, directory: Path) -> None:
        state = checkpoints.load_state(directory / "state.pt", self.identity)
        if state is not None:
            checkpoints.put_weights(self.module, state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.saved = state["step"], state["saved"]
            # A row of the step itself, from a run that stopped there, will be measured again.
            self.rows = [row for row in json.loads(state["rows"]) if row["step"] < self.step]
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        (directory / "log.jsonl").write_text(lines, encoding="utf-8")

    def save(self, keep: bool) -> None:
        """Writes the state; with `keep` also the weights under the step's own name."""
        if self.directory is None:
            return
        weights = checkpoints.trainable_weights(self.module)
        if keep and self.step not in self.saved:
            checkpoints.save(checkpoints.weights_path(self.directory, self.step), weights)
            self.saved.append(self.step)
        state = {
            "weights": weights,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "saved": self.saved,
            "rows": json.dumps(self.rows),
            "identity": checkpoints.identity_text(self.identity),
        }
        checkpoints.save(self.directory / "state.pt", state)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The weights that were kept."""
        if self.directory is None:
            return ()
        paths = [checkpoints.weights_path(self.directory, step) for step in self.saved]
        return tuple(map(Checkpoint, self.saved, paths))

    def log(self, row: Row, callback: Callback | None) -> None:
        """Appends a row to the log and tells the callback."""
        self.rows.append(row)
        if self.directory is not None:
            with (self.directory / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if callback is not None:
            callback(row)

    def update(self) -> float:
        """One AdamW step on the gradient at hand; returns the gradient's norm."""
        import torch

        limit = self.descent.max_gradient_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, math.inf if limit is None else limit)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(
                f"the gradient at step {self.step} is {float(norm)}; lower the learning rate, or "
                "train in float32. The last checkpoint is intact."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.descent.rate(self.step)
        self.optimizer.step()
        self.step += 1
        return float(norm)


def descend(
    descent: Descent,
    module: "torch.nn.Module",
    problem: Problem,
    accumulate: Accumulate,
    *,
    settings: Mapping[str, Any],
    directory: Path | None,
    callback: Callback | None,
    rng: np.random.Generator,
    measure: Callable[[Problem, np.random.Generator], Row] | None = None,
) -> TrainingResult:
    """Runs the loop; see the module's docstring.

    Args:
        measure: Measures the policy on a step's prompts every `descent.measure_every` steps.
        settings: What identifies the run beside problem and seed: a directory holding a run
            with other settings is refused.
    """
    refuse_several(str(settings.get("solver", "this solver")))
    seed = int(rng.integers(2**62))
    identity = {**identity_of(problem, seed), **settings}
    run = _Run(descent, module, directory, identity)
    before = run.rows[-1]["seconds"] if run.rows else 0.0
    began, stopped = time.monotonic(), "steps"

    def measured() -> Row:
        batch = problem.select(descent.batch(run.step, len(problem.prompts), seed))
        step_rng = np.random.default_rng([seed, 0, run.step])
        row = {"step": run.step, "rate": descent.rate(run.step), **accumulate(batch, step_rng)}
        if measure is not None and descent.measures_at(run.step):
            row |= measure(batch, step_rng)
        return row

    while run.step < descent.steps and stopped == "steps":
        if run.step and descent.checkpoint_every and run.step % descent.checkpoint_every == 0:
            run.save(keep=True)
        run.optimizer.zero_grad(set_to_none=True)
        try:
            row = measured()
        except KeyboardInterrupt:
            run.save(keep=False)
            raise
        if descent.target_kl is not None and row.get("kl", -math.inf) >= descent.target_kl:
            stopped = "target_kl"
        else:
            row["gradient_norm"] = run.update()
        run.log({**row, "seconds": before + time.monotonic() - began}, callback)
    run.save(keep=True)
    seconds = before + time.monotonic() - began
    return TrainingResult(run.rows, run.step, stopped, run.checkpoints(), seconds)


def identity_of(problem: Problem, seed: int) -> dict[str, Any]:
    """What makes a problem and its randomness the same, for recognising a run on disk."""
    _, training_rewards = problem.rewards.atoms(problem.ids)
    return {
        "set of prompts": _hash("\n".join(problem.ids).encode()),
        "training reward": _hash(training_rewards.round(9).tobytes()),
        "beta": problem.beta,
        "seed": seed,
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def identifying(solver: Any) -> dict[str, Any]:
    """The settings that make a run what it is: all but those that only say how long it goes on."""
    settings = dataclasses.asdict(solver)
    descent = settings["descent"]
    for key in ("checkpoint_every", "target_kl", "measure_every", "measure_k"):
        del descent[key]
    if descent["schedule"] == "constant":
        del descent["steps"]
    return {key: value for key, value in settings.items() if key != "prompts_per_pass"}


def passes(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` out of `count`.

    Example:
        >>> passes(5, 2)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def numpy_of(tensor: "torch.Tensor") -> np.ndarray:
    """Values without gradient, float64."""
    return tensor.detach().double().cpu().numpy()
