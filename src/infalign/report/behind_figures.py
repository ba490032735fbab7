"""The numbers behind each figure, as tables for whoever does not see it or wants to use it."""

from collections.abc import Sequence

import numpy as np

from infalign.report.calibration_check import CalibrationCheck
from infalign.report.finding import fraction_of_limit, has_limit, split_words
from infalign.report.measured import Curve, Frontier
from infalign.report.numbers import (
    MISSING,
    nats,
    nats_with_error,
    percent_with_error,
    real,
    shorten,
)
from infalign.report.record import TrainingCurve, WinRateByN
from infalign.report.tables import Table

__all__ = ["calibration", "frontier_curves", "frontier_points", "training", "win_rate_by_n"]

_ROWS = 12
"""About as many points of a curve as a reader looks at; report.json has all of them."""


def _thin(length: int) -> list[int]:
    """Indices of at most `_ROWS` points, ends included."""
    if length <= _ROWS:
        return list(range(length))
    return sorted({round(i * (length - 1) / (_ROWS - 1)) for i in range(_ROWS)})


def frontier_curves(frontier: Frontier) -> Table | None:
    """Limit and predictions at some KL values."""
    named = [("limit", frontier.limit)] if frontier.limit else []
    named += [(curve.transform, curve) for curve in frontier.predictions]
    if not named:
        return None
    kls = named[0][1].kls
    rows = [(nats(kls[i]), *(_at(curve, kls[i]) for _, curve in named)) for i in _thin(len(kls))]
    head = ("KL, nats", *(f"{name}, %" for name, _ in named))
    return Table.of(f"Predicted win rate, {split_words[frontier.split]}", head, rows)


def _at(curve: Curve, kl: float) -> str:
    """The curve at this KL, linear between its own points."""
    if not curve.kls or not curve.kls[0] <= kl <= curve.kls[-1]:
        return MISSING
    return real(100 * float(np.interp(kl, curve.kls, curve.win_rates)), 1)


def frontier_points(frontier: Frontier) -> Table | None:
    """Every checkpoint of every policy."""
    limited = has_limit(frontier)
    rows = [
        (
            measured.policy,
            MISSING if point.step is None else str(point.step),
            nats_with_error(point.kl),
            percent_with_error(point.win_rate),
            *([percent_with_error(fraction_of_limit(frontier, point))] if limited else []),
        )
        for measured in frontier.measured
        for point in measured.checkpoints
    ]
    head = ("policy", "step", "KL, nats", "win rate, %")
    head = (*head, "of the limit, %") if limited else head
    return Table.of(f"Measured, {split_words[frontier.split]}", head, rows) if rows else None


def calibration(check: CalibrationCheck) -> Table:
    """The distribution functions at some levels."""
    rows = [
        (real(check.levels[i]), *(_triple(side[i]) for side in (check.before, check.after)))
        for i in _thin(len(check.levels))
    ]
    head = ("level", "before, %", "after, %")
    note = "Mean over prompts, in brackets the 10 % and 90 % points over prompts."
    return Table.of("Share of rollouts at or below a level", head, rows, note)


def _triple(triple: tuple[float, float, float]) -> str:
    low, mean, high = (real(100 * value, 0) for value in triple)
    return f"{mean} [{low}, {high}]"


def training(curves: Sequence[TrainingCurve]) -> Table:
    """Some steps of every policy."""
    rows = []
    for curve in curves:
        for i in _thin(len(curve.steps)):
            series = (curve.reward, curve.quantile, curve.kl)
            values = [real(s[i], 3) if s else MISSING for s in series]
            rows.append((curve.policy, f"{curve.steps[i]:g}", *values))
    return Table.of("Training", ("policy", "step", "reward", "quantile", "KL, nats"), rows)


def win_rate_by_n(curves: Sequence[WinRateByN], reward: str) -> Table:
    """Win rates at powers of two."""
    ns = sorted({n for curve in curves for n in curve.ns if n & (n - 1) == 0})
    rows = []
    for curve in curves:
        known = dict(zip(curve.ns, curve.win_rates, strict=True))
        values = [percent_with_error(known.get(n)) for n in ns]
        where = f"{split_words[curve.split]}, {shorten(curve.judge or reward, 30)}"
        rows.append((curve.policy, where, real(curve.kl), *values))
    head = ("policy", "on, judged by", "KL, nats", *(f"N = {n}, %" for n in ns))
    return Table.of("Best-of-N win rate", head, rows, words=[1])
