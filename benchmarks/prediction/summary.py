"""What all runs together say: how often a prediction holds, and what the rest is made of."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.prediction.explained import STAGES
from benchmarks.prediction.recording import COLUMNS, TOLD

__all__ = ["CLOSE", "at_last", "parts_of", "summarised", "told_of"]

CLOSE = 0.005
"""Half a point: near enough in practice. It stands beside the intervals; those decide."""
GROUPED = ("world", "k", "split")


def summarised(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Per world, K and split, and over all."""
    runs = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[name] for name in GROUPED)].append(run)
    train = [run for run in runs if run["split"] == "train"]
    told = [dict(zip(GROUPED, key, strict=True)) | told_of(group) for key, group in groups.items()]
    return {"groups": told, "overall": told_of(train) if train else None}


def told_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Runs, how well each prediction does, and the mean size of each part."""
    told: dict[str, Any] = {"runs": len(runs), "mean_kl": _mean(run["kl"] for run in runs)}
    told["mean_kl_sd"] = _mean(run["kl_sd"] for run in runs)
    for stage in TOLD:
        if any(run[stage] is not None for run in runs):
            told[stage] = _agreement(runs, stage)
    told["last"] = _agreement([at_last(run) for run in runs], "last")
    split = [parts_of(run) for run in runs]
    names = sorted({name for parts in split for name in parts})
    told["parts"] = {
        name: {
            "mean": _mean(parts.get(name, 0.0) for parts in split),
            "mean_size": _mean(abs(parts.get(name, 0.0)) for parts in split),
        }
        for name in names
    }
    return told


def _agreement(runs: Sequence[dict[str, Any]], stage: str) -> dict[str, Any]:
    """Share of intervals of the difference with 0 in them, and the sizes of the differences."""
    asked = [run for run in runs if run[stage] is not None]
    off = np.abs([run[f"{stage}_off"] for run in asked])
    inside = [run["low"] <= run[stage] <= run["high"] for run in asked]
    return {
        "runs": len(asked),
        "covered": _mean(run[f"{stage}_covers"] for run in asked),
        "inside": _mean(inside),
        "close": _mean(off <= CLOSE),
        "median": round(float(np.median(off)), 5),
        "most": round(float(off.max()), 5),
    }


def at_last(run: dict[str, Any]) -> dict[str, Any]:
    """The run with its last prediction under the name `last`."""
    stage = _known(run)[-1]
    return run | {f"last{part}": run[f"{stage}{part}"] for part in ("", "_off", "_se", "_covers")}


def parts_of(run: dict[str, Any]) -> dict[str, float]:
    """Measured − curve, split: uneven KL, atoms, rollouts, training. Their sum is all of it.

    Example:
        >>> run = {"curve": 0.94, "uneven": None, "atoms": 0.92, "rollouts": 0.91, "win_rate": 0.9}
        >>> {name: round(part, 2) for name, part in parts_of(run).items()}
        {'atoms': -0.02, 'rollouts': -0.01, 'training': -0.01}
    """
    known = _known(run)
    values = [run[stage] for stage in known] + [run["win_rate"]]
    return dict(zip([*known[1:], "training"], np.diff(values).tolist(), strict=True))


def _known(run: dict[str, Any]) -> list[str]:
    return [stage for stage in STAGES if run[stage] is not None]


def _mean(values: Iterable[Any]) -> float:
    return round(float(np.mean(list(values))), 5)
