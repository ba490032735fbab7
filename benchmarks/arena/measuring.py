"""What a law wins, and at a KL that all of them share.

Everything is an exact sum over listed responses, so an error is only ever that of the prompts.
A law is brought to a common mean KL along π_ref^(1−λ)·π^λ/Z, one λ for all prompts of a split: for
a converged policy that is the same training reward at a larger β, and no policy is compared beyond
where it was trained to.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy import optimize

from benchmarks.arena.world import Split, World
from infalign.evaluation import Estimate, compare, estimate, paired_difference
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.win_rate import atomic_win_rate, decoded_masses, frontier

__all__ = ["Reading", "at_kl", "compared", "divergences", "read", "towards", "wins"]


def divergences(
    law: Float[np.ndarray, "P C"], reference: Float[np.ndarray, "P C"]
) -> Float[np.ndarray, "P"]:
    """KL(π‖π_ref) of each prompt. Nats.

    Example:
        >>> divergences(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])).round(4).tolist()
        [0.6931]
    """
    some = law > 0
    return np.where(some, law * np.log(np.where(some, law, 1.0) / reference), 0.0).sum(1)


def towards(
    law: Float[np.ndarray, "P C"], reference: Float[np.ndarray, "P C"], share: float
) -> Float[np.ndarray, "P C"]:
    """π_ref^(1−λ)·π^λ/Z with λ = `share`."""
    log_law = np.log(np.maximum(law, 1e-300))
    log_start = np.log(np.maximum(reference, 1e-300))
    log_mixed = (1 - share) * log_start + share * log_law
    mixed = np.exp(log_mixed - log_mixed.max(1, keepdims=True))
    return mixed / mixed.sum(1, keepdims=True)


def at_kl(
    law: Float[np.ndarray, "P C"],
    reference: Float[np.ndarray, "P C"],
    kl: float,
    start: Float[np.ndarray, "P C"] | None = None,
) -> Float[np.ndarray, "P C"] | None:
    """The law on the way to `law` whose mean KL is `kl`; None where `law` is not that far.

    Args:
        law: where the way ends.
        reference: what KL is measured from.
        kl: nats.
        start: where the way starts, a law of less KL; the reference where None.
    """
    start = reference if start is None else start
    if divergences(law, reference).mean() < kl:
        return None

    def beyond(share: float) -> float:
        return float(divergences(towards(law, start, share), reference).mean()) - kl

    return towards(law, start, float(optimize.brentq(beyond, 0.0, 1.0, xtol=1e-6)))


def wins(
    law: Float[np.ndarray, "P C"], world: World, split: Split, procedure: RankProcedure, judge: str
) -> Float[np.ndarray, "P"]:
    """Win rate of each prompt, both sides decoded; `law` has the rows of the split.

    The procedure picks by the training reward, the judge compares what was picked.
    """
    rows = world.rows(split)
    reference, rewards = world.law[rows], world.judges["training"][rows]
    if judge == "training":
        return atomic_win_rate(law, reference, rewards, procedure)
    judged = world.judges[judge][rows]
    ours, theirs = (decoded_masses(masses, rewards, procedure) for masses in (law, reference))
    return compare(judged, ours, judged, theirs)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A law at a KL, judged."""

    kl: float
    """Mean over the split's prompts. Nats."""
    win_rate: Estimate
    """After decoding both sides."""
    limit: float
    """What no policy exceeds at that KL when rewards are continuous."""
    per_prompt: Float[np.ndarray, "P"]
    """Win rates."""

    @property
    def fraction(self) -> float:
        """(W − ½)/(W* − ½)."""
        return (self.win_rate.value - 0.5) / (self.limit - 0.5)


def read(
    law: Float[np.ndarray, "P C"],
    world: World,
    split: Split,
    procedure: RankProcedure,
    *,
    kl: float | None = None,
    judge: str = "training",
) -> Reading | None:
    """A whole law (all prompts) on a split, as it is or brought to a KL; None if out of reach."""
    rows = world.rows(split)
    moved = law[rows] if kl is None else at_kl(law[rows], world.law[rows], kl)
    if moved is None:
        return None
    per_prompt = wins(moved, world, split, procedure, judge)
    reached = float(divergences(moved, world.law[rows]).mean())
    limit = float(frontier(procedure, [reached])[0]) if reached > 1e-9 else 0.5
    return Reading(reached, estimate(per_prompt), limit, per_prompt)


def compared(ours: Reading, theirs: Reading) -> Estimate:
    """Difference of win rates, paired by prompt."""
    return paired_difference(ours.per_prompt, theirs.per_prompt)
