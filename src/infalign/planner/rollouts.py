"""Rollouts: what calibrating with K rollouts per prompt costs, and how many are enough.

With K reference rewards a response's quantile is known only by its rank among them. Training then
aims at a coarser law (:mod:`infalign.quantile.finite`), and what it wins less at the same KL is the
price of K.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import final

from infalign.quantile.finite import finite_frontier, largest_kl, rollouts_enough
from infalign.quantile.procedures import Procedure, RankProcedure
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


def rollouts(
    procedure: Procedure,
    kl: float,
    ks: Sequence[int],
    transform: Transform | str = "optimal",
    *,
    reference_procedure: Procedure | None = None,
) -> list[RolloutRow]:
    """Predicted win rate with each number of rollouts, at the same KL.

    Args:
        procedure: decodes the aligned policy; picks by rank.
        kl: from the reference, nats.
        ks: numbers of rollouts, each ≥ 2.
        transform: what is trained on, or "optimal".
        reference_procedure: decodes the reference; the same where None.

    Raises:
        ValueError: K < 2, or a procedure that does not pick by rank.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> few, many = rollouts(BestOfN(4), 0.5, [16, 64])
        >>> few.loss > many.loss > 0
        True
    """
    ranks, reference = refuse_unranked(procedure), None
    if reference_procedure is not None:
        reference = refuse_unranked(reference_procedure)
    for k in ks:
        if k != int(k) or k < 2:
            raise ValueError(
                f"K is {k}; a rank among rollouts needs an integer of at least 2. 64 is usual."
            )
    start, perfect = frontier(ranks, [0.0, kl], transform, reference)

    def row(k: int) -> RolloutRow:
        wins = math.nan
        if largest_kl(k) > kl:
            try:
                rates = finite_frontier(
                    _chosen(transform), ranks, k, [kl], reference_procedure=reference
                )
                wins = float(rates[0])
            except ValueError:  # this transform's tilts end below the largest KL of all
                wins = math.nan
        gain = (wins - start) / (perfect - start)
        return RolloutRow(k, wins, float(perfect - wins), float(gain), largest_kl(k))

    return [row(int(k)) for k in ks]


def enough_rollouts(
    procedure: Procedure,
    kl: float,
    loss: float,
    transform: Transform | str = "optimal",
    *,
    reference_procedure: Procedure | None = None,
) -> int:
    """The least K that loses no more than `loss` of win rate at that KL.

    Args:
        procedure: decodes the aligned policy; picks by rank.
        kl: from the reference, nats.
        loss: of win rate, in (0, 1); 0.01 is one point.
        transform: what is trained on, or "optimal".
        reference_procedure: decodes the reference; the same where None.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> enough_rollouts(BestOfN(4), kl=0.5, loss=0.01)
        99
    """
    reference = None if reference_procedure is None else refuse_unranked(reference_procedure)
    return rollouts_enough(
        _chosen(transform), refuse_unranked(procedure), kl, loss, reference_procedure=reference
    )


def refuse_unranked(procedure: Procedure) -> RankProcedure:
    """The procedure; ValueError unless it picks by rank."""
    if not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"{procedure.name} came; finite calibration is computed for procedures that pick by "
            "rank. Plan with best-of-n, worst-of-n, median-of-n or an order statistic."
        )
    return procedure


def _chosen(transform: Transform | str):
    if isinstance(transform, Transform) or transform == "optimal":
        return transform
    raise ValueError(f"transform is {transform!r}; give a transform object, or 'optimal'.")
