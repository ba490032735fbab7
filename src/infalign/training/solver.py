"""What every solver shares: the problem it gets, the policy it needs, the record it returns.

The problem is KL-regularised RL: maximise E_π[Φ] − β·KL(π‖π_ref). Its solution is known,
π_ref·exp(Φ/β)/Z, so every solver is a way of moving a parametrised policy towards one and the
same target, and a test on a tabular policy can ask whether it arrives.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.procedures import RankProcedure
from infalign.training.rewards import TrainingReward

if TYPE_CHECKING:  # torch is heavy, and choosing a solver must not load it
    import torch

__all__ = [
    "Callback",
    "Checkpoint",
    "EnumerablePolicy",
    "Problem",
    "Row",
    "Solver",
    "TrainablePolicy",
    "TrainingResult",
]

Row = dict[str, float | int]
"""One line of the log: `step` and what was measured."""
Callback = Callable[[Row], None]
"""Called with each new row of the log."""


@runtime_checkable
class TrainablePolicy(Protocol):
    """A policy with parameters, and a frozen reference it started from."""

    @property
    def module(self) -> "torch.nn.Module":
        """Its trainable parameters are those with `requires_grad`."""
        ...

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        ...

    def differentiable_log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> "torch.Tensor":
        """log π(y|x), "P K", in nats, with gradients."""
        ...

    def reference_log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π_ref(y|x) in nats."""
        ...


@runtime_checkable
class EnumerablePolicy(Protocol):
    """A trainable policy whose C responses to each prompt can all be listed."""

    @property
    def module(self) -> "torch.nn.Module":
        """Its trainable parameters are those with `requires_grad`."""
        ...

    def log_law(self, prompts: Sequence[str]) -> "torch.Tensor":
        """log π(y_c|x), "P C", with gradients."""
        ...

    def reference_law(self, prompts: Sequence[str]) -> Float[np.ndarray, "P C"]:
        """π_ref(y_c|x); rows sum to 1."""
        ...

    def responses(self, prompts: Sequence[str]) -> list[list[str]]:
        """The C response texts of each prompt, in the order of `log_law`."""
        ...


@dataclasses.dataclass(frozen=True)
class Problem:
    """Maximise E_π[Φ] − β·KL(π‖π_ref), on average over these prompts."""

    prompts: Sequence[Prompt]
    """What to answer; chat prompts with their template rendered into `text`."""
    rewards: TrainingReward
    """Φ, of new responses and of the stored reference rollouts."""
    beta: float
    """KL coefficient, in the training reward's unit per nat. > 0; match KL, never β."""
    rollouts: Sequence[Sequence[Response]] | None = None
    """The K reference rollouts of each prompt, in the order of `rewards.atoms`; offline only."""
    procedure: RankProcedure | None = None
    """For watching the win rate after decoding while training; training does not see it."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(
                f"beta is {self.beta}; it must be > 0, because without a KL term the optimum is "
                "a single response. For a small KL penalty give a small positive beta."
            )
        if not self.prompts:
            raise ValueError("there are no prompts to train on; give at least one.")
        if self.rollouts is not None and len(self.rollouts) != len(self.prompts):
            raise ValueError(
                f"{len(self.rollouts)} lists of rollouts for {len(self.prompts)} prompts; "
                "give the K reference rollouts of each prompt, in the prompts' order."
            )

    @property
    def ids(self) -> list[str]:
        """Prompt ids."""
        return [prompt.id for prompt in self.prompts]

    def select(self, rows: Sequence[int]) -> "Problem":
        """The same problem on some of the prompts."""
        rollouts = self.rollouts
        return dataclasses.replace(
            self,
            prompts=[self.prompts[row] for row in rows],
            rollouts=None if rollouts is None else [rollouts[row] for row in rows],
        )

    @property
    def texts(self) -> list[str]:
        """Prompt texts."""
        return [prompt.text for prompt in self.prompts]

    def stored(self) -> Sequence[Sequence[Response]]:
        """The rollouts, or a refusal: an offline solver has nothing else to learn from."""
        if self.rollouts is None:
            raise ValueError(
                "this solver learns from stored reference rollouts, and the problem has none; "
                "pass rollouts=store.responses(prompts), or choose an online solver."
            )
        return self.rollouts


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Trainable weights as they were after a number of updates."""

    step: int
    """Updates made."""
    path: Path
    """A file for :func:`infalign.training.checkpoints.load_weights`."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a run did. The policy itself has been moved in place."""

    rows: list[Row]
    """One row per step; row s describes the policy *after s updates* (row 0 is the start)."""
    steps: int
    """Updates made."""
    stopped: str
    """`steps` (all done) or `target_kl`."""
    checkpoints: tuple[Checkpoint, ...] = ()
    """In order of step; empty without a directory."""
    seconds: float = 0.0
    """Wall time, over all sittings of a resumed run."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What only one kind of solver reports."""


class Solver(abc.ABC):
    """Moves a policy towards π_ref·exp(Φ/β)/Z. Settings only: a solver holds no state."""

    @abc.abstractmethod
    def train(
        self,
        policy: Any,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        """Trains `policy` in place.

        Args:
            policy: What the solver needs is in its own docstring.
            problem: What to maximise.
            directory: Log and checkpoints go here; a run found here is resumed, and ends
                bit for bit where it would have ended without the interruption.
            callback: Called with each row of the log.
            rng: Source of all randomness; the same seed gives the same run.
        """

    def check(self, policy: Any, prompts: Sequence[Prompt]) -> None:  # noqa: B027 most need nothing
        """Refuses, before long work, a policy or prompts that this solver cannot train on.

        Raises:
            TypeError: A policy of the wrong kind.
            ValueError: Prompts or settings that cannot be.
        """
