"""A run as one line of numbers, in `result.json` and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.arena.world import Split, World
from benchmarks.prediction.explained import STAGES, Explained
from infalign.evaluation import estimate
from infalign.quantile.procedures import RankProcedure

__all__ = ["COLUMNS", "records", "row_of"]

TOLD = (*STAGES, "planner")
"""Predictions; `planner` is the curve with the cost of K rollouts, known before any is drawn."""
FINEST = 1e-4
"""A hundredth of a point: what the arithmetic is good for. Intervals are at least that wide."""
COLUMNS = (
    "world", "k", "split", "method", "strength", "procedure", "prompts",
    "kl", "kl_sd", "win_rate", "low", "high", "slope",
    *(f"{stage}{part}" for stage in TOLD for part in ("", "_off", "_se", "_covers")),
)  # fmt: skip
"""Of a row: KL's mean and spread over prompts, the measured win rate with its interval, λ; then of
each prediction its value, measured − predicted with its standard error, and whether the 95 %
interval of that difference has 0 in it."""


def row_of(
    name: str,
    world: World,
    split: Split,
    method: str,
    strength: float,
    procedure: RankProcedure,
    said: Explained,
) -> list[Any]:
    """In the order of COLUMNS."""
    wins = estimate(said.wins)
    row: list[Any] = [name, world.k, split, method, strength, procedure.name, len(said.wins)]
    row += [round(said.kl, 5), round(float(np.std(said.kls)), 5)]
    row += [round(value, 5) for value in (wins.value, wins.low, wins.high)]
    row.append(round(said.predictions[said.last].slope, 5))
    for stage in TOLD:
        if stage not in said.predictions:
            row += [None] * 4
            continue
        off = said.deviation(stage)
        row += [round(value, 5) for value in (said.predictions[stage].value, off.value, off.se)]
        row.append(bool(off.low - FINEST <= 0 <= off.high + FINEST))
    return row


def records(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a result by column."""
    return [dict(zip(result["columns"], row, strict=True)) for row in result["rows"]]
