"""How the policy is moved: the solvers the experiment file chooses among.

All of them climb the same objective, E[Φ] − β·KL, so all share one dial: `beta`, or the KL the
optimum shall have, from which β follows.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from infalign.config.section import BY_KIND, NAME_ALONE, Section, is_positive, require

__all__ = ["ExactSolver", "FitSolver", "OfflineSolver", "OnlineSolver", "Solver"]


@dataclass(frozen=True, kw_only=True)
class _Solver(Section):
    kl: float | None = None
    """KL of the optimum from the reference, mean over prompts, in nats; β follows. > 0."""
    beta: float | None = None
    """KL coefficient. > 0. Give exactly one of `kl` and `beta`."""
    steps: int = 60
    """Updates of the parameters. ≥ 1."""
    learning_rate: float = 5e-4
    """Of AdamW. > 0."""
    prompts_per_step: int | None = None
    """Training prompts in one update; all by default. ≥ 1."""
    checkpoint_every: int = 10
    """Steps between checkpoints, from which a run resumes. ≥ 1."""
    stop_at_kl: float | None = None
    """Stop early when the measured KL reaches this many nats. > 0."""

    def __post_init__(self) -> None:
        require(
            (self.kl is None) != (self.beta is None),
            f"kl is {self.kl} and beta is {self.beta}; exactly one of them is needed, since each "
            "follows from the other",
        )
        for name in ("kl", "beta", "learning_rate", "stop_at_kl"):
            value = getattr(self, name)
            require(
                value is None or is_positive(value),
                f"{name} is {value}; a finite number greater than 0 is needed",
            )
        for name in ("steps", "prompts_per_step", "checkpoint_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}; at least 1 is needed")


@dataclass(frozen=True, kw_only=True)
class ExactSolver(_Solver):
    """The exact gradient, by summing over all responses of an enumerable policy."""

    kind: Literal["exact"] = "exact"


@dataclass(frozen=True, kw_only=True)
class FitSolver(_Solver):
    """Weighted-likelihood fit of the tilted rollouts, then refinement on the policy's own."""

    samples_per_prompt: int | None = None
    """Stored rollouts used of each prompt; all by default. ≥ 2."""
    refine_steps: int = 0
    """Online steps after the fit. ≥ 0."""
    kind: Literal["fit"] = "fit"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_samples(self.samples_per_prompt)
        require(self.refine_steps >= 0, f"refine_steps is {self.refine_steps}; 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class OfflineSolver(_Solver):
    """Regression of the log-ratio on the training reward over stored rollouts; log Z is known."""

    samples_per_prompt: int | None = None
    """Stored rollouts used of each prompt; all by default. ≥ 2."""
    kind: Literal["offline"] = "offline"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_samples(self.samples_per_prompt)


@dataclass(frozen=True, kw_only=True)
class OnlineSolver(_Solver):
    """REINFORCE, leave-one-out, on the policy's own responses."""

    samples_per_prompt: int = 8
    """Responses drawn to each prompt in a step. ≥ 2, as they are each other's baseline."""
    divergence: Literal["k1", "rao_blackwell"] = "k1"
    """KL of a response: its log-ratio, or the sum of its next-token laws' divergences."""
    kind: Literal["online"] = "online"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_samples(self.samples_per_prompt)


Solver = Annotated[ExactSolver | FitSolver | OfflineSolver | OnlineSolver, BY_KIND, NAME_ALONE]


def _require_samples(samples: int | None) -> None:
    require(
        samples is None or samples >= 2,
        f"samples_per_prompt is {samples}; at least 2 are needed, to be compared with each other",
    )
