"""What a law wins, and at a KL that all of them share.

Everything is an exact sum over listed responses, so an error is only ever that of the prompts.
A law is brought to a common mean KL along π_ref^(1−λ)·π^λ/Z, one λ for all prompts of a split: for
a converged policy that is the same training reward at a larger β, and no policy is compared beyond
where it was trained to.

The KL is that of these very prompts. Other prompts would put every policy elsewhere on its way, so
a prompt does not count by its win rate but by its influence on the mean at the solved KL.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import optimize

from benchmarks.arena.world import Split, World
from infalign.evaluation import Estimate, compare, estimate, paired_difference
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.win_rate import atomic_win_rate, decoded_masses, frontier

__all__ = [
    "Reading", "at_kl", "compared", "divergences", "influence", "influences", "read", "stretch",
    "towards", "wins",
]  # fmt: skip

STEP = 0.01
"""Share of the way over which slopes are read off."""


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
    found = stretch(law, reference, kl, start)
    return None if found is None else found[0]


def stretch(
    law: Float[np.ndarray, "P C"],
    reference: Float[np.ndarray, "P C"],
    kl: float,
    start: Float[np.ndarray, "P C"] | None = None,
) -> tuple[Float[np.ndarray, "P C"], Float[np.ndarray, "P C"]] | None:
    """The law that :func:`at_kl` finds, and one a little before it on the same way."""
    start = reference if start is None else start
    if divergences(law, reference).mean() < kl:
        return None

    def beyond(share: float) -> float:
        return float(divergences(towards(law, start, share), reference).mean()) - kl

    share = float(optimize.brentq(beyond, 0.0, 1.0, xtol=1e-6))
    return towards(law, start, share), towards(law, start, share - STEP)


def influence(
    values: Float[np.ndarray, "P"], kls: Float[np.ndarray, "P"], slope: float
) -> Float[np.ndarray, "P"]:
    """What each prompt contributes to a mean that is read where the mean KL is a given number.

    W_x − λ·(KL_x − KL̄), λ = dW/dKL along the way on which that KL was solved for. The mean is W.
    The spread over prompts is that of W at equal KL (delta method, first order): a prompt on which
    the policy moves far wins more itself, and takes KL from all the others.

    Example:
        >>> influence(np.array([0.6, 0.8]), np.array([0.5, 1.5]), 0.2).round(3).tolist()
        [0.7, 0.7]
    """
    return values - slope * (kls - kls.mean())


def influences(
    value: Callable[[Float[np.ndarray, "P C"]], Float[np.ndarray, "P"]],
    law: Float[np.ndarray, "P C"],
    reference: Float[np.ndarray, "P C"],
    near: Float[np.ndarray, "P C"] | None = None,
) -> Float[np.ndarray, "P"]:
    """The same with λ read off; estimates and paired differences at equal KL are made of these.

    Args:
        value: Law → one number per prompt, such as its win rate by a judge.
        law: At the KL that was solved for.
        reference: What KL is measured from.
        near: Another law on the way, as of :func:`stretch`; where None, one a little nearer to the
            reference, which for a tilt is the same tilt at a larger β.
    """
    near = towards(law, reference, 1 - STEP) if near is None else near
    values, kls = value(law), divergences(law, reference)
    less = float(kls.mean() - divergences(near, reference).mean())
    if abs(less) < 1e-12:
        return values
    return influence(values, kls, float(values.mean() - value(near).mean()) / less)


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
    influence: Float[np.ndarray, "P"]
    """On the mean at the KL asked for; the win rates where none was."""

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
    start: Float[np.ndarray, "P C"] | None = None,
) -> Reading | None:
    """A whole law (all prompts) on a split, as it is or brought to a KL; None if out of reach.

    Brought there from `start`, of less KL; from the reference where None.
    """
    rows = world.rows(split)
    reference = world.law[rows]

    def won(of: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "P"]:
        return wins(of, world, split, procedure, judge)

    if kl is None:
        moved = law[rows]
        counted = per_prompt = won(moved)
    else:
        found = stretch(law[rows], reference, kl, None if start is None else start[rows])
        if found is None:
            return None
        moved, near = found
        per_prompt, counted = won(moved), influences(won, moved, reference, near)
    reached = float(divergences(moved, reference).mean())
    limit = float(frontier(procedure, [reached])[0]) if reached > 1e-9 else 0.5
    return Reading(reached, estimate(counted), limit, per_prompt, counted)


def compared(ours: Reading, theirs: Reading) -> Estimate:
    """Difference of win rates, paired by prompt, each prompt by its influence."""
    return paired_difference(ours.influence, theirs.influence)
