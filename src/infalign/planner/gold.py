"""Gold: where more candidates or more KL stop helping, when another reward judges.

Selecting and training by a proxy climbs the proxy without end; the gold win rate rises ever more
slowly, because the proxy's top is only partly gold's. Under the Gaussian copula it slows but never
falls while ρ > 0: a proxy that is *hacked*, whose very best answers are bad ones, is not in this
model, and only a measurement by the gold judge shows it. The opponent is fixed, by default a single
sample of the reference, so that rows of different N answer the same question.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

from infalign.planner.judging import judged_by, reason_of, refuse_agreement
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN, Identity, Procedure
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.win_rate import reference_win_rate, win_rate

__all__ = ["GoldRow", "gold_by_kl", "gold_by_n", "stops_at"]

WORTHWHILE = 0.01
"""One point: a smaller gain is called none."""


@final
@dataclasses.dataclass(frozen=True)
class GoldRow:
    """What one N or one KL is worth to the judge."""

    candidates: int
    """N of best-of-N, or the procedure's."""
    kl: float
    """Nats; 0 is the reference itself."""
    proxy_win_rate: float
    """By the reward that selects."""
    gold_win_rate: float
    """By the reward that judges."""
    gain: float
    """Gold win rate above the row before; NaN in the first."""
    unsolved: str | None = None
    """Why the optimum was not found; win rates are then NaN."""


def gold_by_n(
    agreement: float,
    kl: float,
    ns: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    *,
    family: Callable[[int], Procedure] = BestOfN,
    reference_procedure: Procedure | None = Identity(),  # noqa: B008  # frozen
) -> list[GoldRow]:
    """Best-of-N, or another family, for each N; policies optimal for the proxy at one KL.

    KL 0 is the reference itself.

    Example:
        >>> rows = gold_by_n(0.5, 0.5, [1, 4, 16])
        >>> bool(rows[1].gain > rows[2].gain > 0)
        True
    """
    pairs = [(family(n), kl) for n in sorted(set(ns))]
    return _rows(agreement, pairs, reference_procedure)


def gold_by_kl(
    agreement: float,
    procedure: Procedure,
    kls: Sequence[float] = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    *,
    reference_procedure: Procedure | None = Identity(),  # noqa: B008  # frozen
) -> list[GoldRow]:
    """One procedure at each KL, policies optimal for the proxy."""
    return _rows(agreement, [(procedure, kl) for kl in sorted(set(kls))], reference_procedure)


def stops_at(rows: Sequence[GoldRow], worthwhile: float = WORTHWHILE) -> GoldRow | None:
    """The first row after which going on to the next gains less than is worthwhile; None if none.

    Example:
        >>> stops_at(gold_by_n(0.5, 0.5, [1, 2, 4])) is None
        True
    """
    return next((row for row, after in pairwise(rows) if after.gain < worthwhile), None)


def _rows(
    agreement: float,
    pairs: Sequence[tuple[Procedure, float]],
    reference_procedure: Procedure | None,
) -> list[GoldRow]:
    refuse_agreement(agreement)
    rows: list[GoldRow] = []
    for procedure, kl in pairs:
        proxy, gold, why = math.nan, math.nan, None
        try:
            proxy = _win_rate(procedure, kl, reference_procedure, 1.0)
            gold = _win_rate(procedure, kl, reference_procedure, float(agreement))
        except ArithmeticError as error:
            why = reason_of(error)
        gain = gold - rows[-1].gold_win_rate if rows else float("nan")
        rows.append(GoldRow(procedure.candidates, kl, proxy, gold, gain, why))
    return rows


def _win_rate(
    procedure: Procedure, kl: float, reference: Procedure | None, agreement: float
) -> float:
    judge = judged_by(agreement)
    if kl == 0:
        return reference_win_rate(procedure, reference, **judge)
    best = optimal_transform(procedure, kl=kl, reference_procedure=reference)
    return win_rate(TiltedPolicy(best, best.beta), procedure, reference, **judge)
