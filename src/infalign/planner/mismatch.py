"""Mismatch: what a policy trained for one procedure wins when it is decoded by another.

W[i, j]: the policy is trained for procedure i to the KL, and then both sides are decoded by j. Down
a column the best is the limit, on the row that was trained for it; along a row stands what one
policy is worth to users who decode it in their own way.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.planner.judging import judged_by, reason_of, refuse_agreement
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import Procedure
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Transform
from infalign.quantile.win_rate import win_rate

__all__ = ["Mismatch", "mismatch", "refuse_procedures"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Mismatch:
    """Train-for × decode-with."""

    kl: float
    """Of every policy, nats."""
    rows: tuple[str, ...]
    """Policies: the procedure each is trained for, then the names of further transforms."""
    columns: tuple[str, ...]
    """Procedures that decode both sides."""
    win_rates: Float[np.ndarray, "R C"]
    """W[i, j]."""
    limits: Float[np.ndarray, "C"]
    """The largest win rate of each procedure at this KL."""
    betas: Float[np.ndarray, "R"]
    """KL coefficient to train each policy with."""
    unsolved: tuple[str, ...] = ()
    """Why an optimum was not found, its row and its limit NaN."""

    @property
    def losses(self) -> Float[np.ndarray, "R C"]:
        """limit − W: what is lost against training for the procedure that decodes."""
        return self.limits - self.win_rates

    @property
    def worst_losses(self) -> Float[np.ndarray, "R"]:
        """The largest loss of each row."""
        return np.fmax.reduce(self.losses, axis=1)

    @property
    def worst_win_rates(self) -> Float[np.ndarray, "R"]:
        """The smallest win rate of each row."""
        return np.fmin.reduce(self.win_rates, axis=1)


def mismatch(
    procedures: Sequence[Procedure],
    kl: float,
    *,
    transforms: Sequence[tuple[str, Transform] | Transform] = (),
    agreement: float = 1.0,
) -> Mismatch:
    """The matrix of win rates, both sides decoded alike.

    Args:
        procedures: at least two different ones; each has a row and a column.
        kl: KL of every policy from the reference, nats, > 0.
        transforms: further rows, policies trained on these to the same KL; a name may stand first.
        agreement: Spearman ρ between the selecting and the judging reward; below 1 the win rates
            are the judge's.

    Raises:
        ValueError: fewer than two procedures, one of them twice, or a KL out of reach.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> found = mismatch([BestOfN(1), BestOfN(4)], kl=1.0)
        >>> found.win_rates.round(3).tolist()
        [[0.865, 0.877], [0.774, 0.941]]
        >>> found.worst_losses.round(3).tolist()
        [0.064, 0.091]
    """
    procedures = refuse_procedures(procedures)
    refuse_agreement(agreement)
    judge = judged_by(agreement)
    bests, unsolved = [], []
    for p in procedures:
        try:
            bests.append(optimal_transform(p, kl=kl, **judge))
        except ArithmeticError as error:
            bests.append(None)
            unsolved.append(reason_of(error))
    named = [one if isinstance(one, tuple) else (one.name, one) for one in transforms]
    policies = [best and TiltedPolicy(best, best.beta) for best in bests]
    policies += [TiltedPolicy(one, beta_for_kl(one, kl)) for _, one in named]
    rates = np.array(
        [[win_rate(f, p, **judge) if f else np.nan for p in procedures] for f in policies]
    )
    limits = np.array([best.win_rate if best else np.nan for best in bests])
    np.fill_diagonal(rates[: len(bests)], limits)
    names = tuple(p.name for p in procedures)
    return Mismatch(
        kl,
        (*names, *(name for name, _ in named)),
        names,
        rates,
        limits,
        np.array([policy.beta if policy else np.nan for policy in policies]),
        tuple(unsolved),
    )


def refuse_procedures(procedures: Sequence[Procedure]) -> tuple[Procedure, ...]:
    """The procedures; ValueError unless there are at least two and none twice."""
    names = [p.name for p in procedures]
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} procedure(s) came; a mismatch is between at least two, such as "
            "best-of-1 and best-of-4."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} came twice; name each procedure once.")
    return tuple(procedures)
