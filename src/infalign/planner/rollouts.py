"""Rollouts: what calibrating with K rollouts per prompt costs, and how many are enough.

With K reference rewards a response's quantile is known only by its rank among them. Training then
aims at a coarser law (:mod:`infalign.quantile.finite`), and what it wins less at the same KL is the
price of K.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import final

from infalign.planner.judging import judged_by, refuse_agreement
from infalign.planner.limit import known_transform
from infalign.quantile.finite import finite_estimate, largest_kl, rollouts_enough
from infalign.quantile.procedures import Procedure
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.transforms import Transform
from infalign.quantile.win_rate import frontier

__all__ = ["RolloutRow", "enough_rollouts", "rollouts"]


@final
@dataclasses.dataclass(frozen=True)
class RolloutRow:
    """What one number of calibration rollouts leaves."""

    k: int
    """K, calibration rollouts per prompt."""
    win_rate: float
    """Predicted after decoding; NaN where K rollouts cannot express the KL."""
    loss: float
    """Below perfect calibration at the same KL."""
    fraction: float
    """Share of perfect calibration's gain that is left."""
    largest_kl: float
    """The KL no training on K rollouts can pass, Σ_{i≤K} 1/i. Nats."""
    se: float = 0.0
    """Standard error of the win rate and the loss: the average over calibrations is over draws."""


def rollouts(
    procedure: Procedure,
    kl: float,
    ks: Sequence[int],
    transform: Transform | str = "optimal",
    *,
    reference_procedure: Procedure | None = None,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> list[RolloutRow]:
    """Predicted win rate with each number of rollouts, at the same KL.

    Args:
        procedure: decodes the aligned policy.
        kl: from the reference, nats.
        ks: numbers of rollouts, each ≥ 2.
        transform: what is trained on, or "optimal" (for the judge).
        reference_procedure: decodes the reference; the same where None.
        agreement: Spearman ρ between the selecting and the judging reward, whose win rate it is.
        ties: where the selecting reward is equal.

    Raises:
        ValueError: K < 2; a KL that the ties cannot express; no agreement to be trained for.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> few, many = rollouts(BestOfN(4), 0.5, [16, 64])
        >>> few.loss > many.loss > 0
        True
        >>> pass_fail = rollouts(BestOfN(4), 0.5, [64], ties=Ties.pass_fail(0.3))[0]
        >>> pass_fail.loss < many.loss
        True
    """
    refuse_agreement(agreement)
    for k in ks:
        if k != int(k) or k < 2:
            raise ValueError(
                f"K is {k}; a rank among rollouts needs an integer of at least 2. 64 is usual."
            )
    ties.refuse_kl(kl)
    transform = known_transform(_chosen(transform), procedure, ties)
    judge = judged_by(agreement, ties)
    start, perfect = frontier(procedure, [0.0, kl], transform, reference_procedure, **judge)

    def row(k: int) -> RolloutRow:
        wins = se = math.nan
        if largest_kl(k) > kl:
            # Where this transform's tilts end below the largest KL of all, it stays unknown.
            with contextlib.suppress(ValueError):
                wins, se = finite_estimate(
                    _chosen(transform),
                    procedure,
                    k,
                    kl,
                    reference_procedure=reference_procedure,
                    **judge,
                )
        gain = (wins - start) / (perfect - start) if perfect != start else math.nan
        return RolloutRow(k, wins, float(perfect - wins), float(gain), largest_kl(k), se)

    return [row(int(k)) for k in ks]


def enough_rollouts(
    procedure: Procedure,
    kl: float,
    loss: float,
    transform: Transform | str = "optimal",
    *,
    reference_procedure: Procedure | None = None,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> int:
    """The least K that loses no more than `loss` of win rate at that KL.

    Args:
        procedure: decodes the aligned policy.
        kl: from the reference, nats.
        loss: of win rate, in (0, 1); 0.01 is one point.
        transform: what is trained on, or "optimal" (for the judge).
        reference_procedure: decodes the reference; the same where None.
        agreement: Spearman ρ between the selecting and the judging reward, whose win rate it is.
        ties: where the selecting reward is equal.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> enough_rollouts(BestOfN(4), kl=0.5, loss=0.01)
        108
    """
    refuse_agreement(agreement)
    ties.refuse_kl(kl)
    return rollouts_enough(
        _chosen(known_transform(transform, procedure, ties)),
        procedure,
        kl,
        loss,
        reference_procedure=reference_procedure,
        **judged_by(agreement, ties),
    )


def _chosen(transform: Transform | str):
    if isinstance(transform, Transform) or transform == "optimal":
        return transform
    raise ValueError(f"transform is {transform!r}; give a transform object, or 'optimal'.")
