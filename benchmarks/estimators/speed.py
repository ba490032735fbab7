"""Seconds of processor time per prompt, ours and theirs in turn.

Both are timed on prompts of one kind, but a slow rival on few of them: `prompts` of a row says on
how many. The few are the first of ours.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.estimators.rivals import (
    enumerated,
    enumerated_arrays,
    grid_of_verl,
    pass_at_k,
    verl_best,
)
from infalign.evaluation import rewards_every_n, win_rate_samples, win_rates_every_n
from infalign.quantile.procedures import BestOfN, WorstOfN

__all__ = ["against", "every_n", "paired"]


def every_n(
    prompts: int, m: int, repeats: int, rng: np.random.Generator, piece: int = 100_000
) -> dict[str, Any]:
    """`prompts` with m samples a side, every N ≤ m, without ties and with many.

    Rewards are made in pieces so that they fit any memory; making them is not timed.
    """
    found: dict[str, Any] = {"prompts": prompts, "m": m, "largest n": m}
    for kind, levels in (("distinct", None), ("100 grades", 100)):
        seconds = []
        for _ in range(repeats):
            spent = 0.0
            for start in range(0, prompts, piece):
                shape = (min(piece, prompts - start), m)
                a, b = (_made(shape, levels, rng) for _ in range(2))
                began = time.process_time()
                win_rates_every_n(a, b)
                spent += time.process_time() - began
            seconds.append(spent)
        found[kind] = {"seconds": statistics.median(seconds), "all": seconds}
    return found


def _made(shape: tuple[int, int], levels: int | None, rng: np.random.Generator) -> np.ndarray:
    values = rng.random(shape)
    return values if levels is None else np.floor(values * levels)


def against(repeats: int, scale: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Each rival on as many prompts as it can bear; per prompt, how many times slower it is."""
    a, b = rng.random((2, 200 * scale, 64))
    return [
        *_enumerations(repeats, scale, rng),
        _row(
            "one N at a time",
            "win rate, every N ≤ 64, m = 64",
            win_rates_every_n,
            lambda x, y: [win_rate_samples(x, y, BestOfN(n)) for n in range(1, 65)],
            (a, b),
            (a[: 20 * scale], b[: 20 * scale]),
            repeats,
        ),
        *_verl(a, scale, repeats),
        _row(
            "pass@k, problem by problem (HumanEval's formula)",
            "pass@k, every k ≤ 64, m = 64",
            lambda x: rewards_every_n(x),
            lambda x: [pass_at_k(x.sum(1).astype(int), 64, k) for k in range(1, 65)],
            ((a < 0.1).astype(float),),
            ((a[: 20 * scale] < 0.1).astype(float),),
            repeats,
        ),
    ]


def _enumerations(repeats: int, scale: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    small_a, small_b = rng.random((2, 200 * scale, 8))
    middle_a, middle_b = rng.random((2, 10 * scale, 16))
    return [
        _row(
            "enumeration in Python",
            "best-of-4 win rate, m = 8",
            lambda x, y: win_rate_samples(x, y, BestOfN(4)),
            lambda x, y: [enumerated(p.tolist(), q.tolist(), 4) for p, q in zip(x, y, strict=True)],
            (small_a, small_b),
            (small_a[: 4 * scale], small_b[: 4 * scale]),
            repeats,
        ),
        _row(
            "enumeration by arrays",
            "best-of-4 win rate, m = 16",
            lambda x, y: win_rate_samples(x, y, BestOfN(4)),
            lambda x, y: enumerated_arrays(x, y, 4),
            (middle_a, middle_b),
            (middle_a, middle_b),
            repeats,
        ),
    ]


def _verl(rewards: np.ndarray, scale: int, repeats: int) -> list[dict[str, Any]]:
    theirs = verl_best()
    if theirs is None:
        return []
    few = rewards[:scale]

    def best_and_worst(samples: np.ndarray) -> None:
        for row in samples:
            for n in grid_of_verl(samples.shape[1]):
                theirs(row.tolist(), n, [np.max, np.min])

    def ours(samples: np.ndarray) -> None:
        ns = grid_of_verl(samples.shape[1])
        rewards_every_n(samples, BestOfN, ns)
        rewards_every_n(samples, WorstOfN, ns)

    what = "best@N and worst@N, N = 2, 4 … 64, m = 64"
    return [
        _row("verl's bootstrap, as released", what, ours, best_and_worst, (rewards,), (few,), 3)
    ]


def _row(
    rival: str,
    task: str,
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    ours_on: Sequence[np.ndarray],
    theirs_on: Sequence[np.ndarray],
    repeats: int,
) -> dict[str, Any]:
    row = paired(lambda: ours(*ours_on), lambda: theirs(*theirs_on), repeats)
    for side, on in (("ours", ours_on), ("theirs", theirs_on)):
        row[side] = [seconds / len(on[0]) for seconds in row[side]]
    ratios = [slow / fast for fast, slow in zip(row["ours"], row["theirs"], strict=True)]
    return {
        "rival": rival,
        "task": task,
        "prompts": [len(ours_on[0]), len(theirs_on[0])],
        "ours, µs per prompt": 1e6 * statistics.median(row["ours"]),
        "theirs, µs per prompt": 1e6 * statistics.median(row["theirs"]),
        "times slower": statistics.median(ratios),
        "least and most": [min(ratios), max(ratios)],
    }


def paired(
    ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int, least: float = 0.02
) -> dict[str, list[float]]:
    """Processor seconds of each, in turn; a short one is called until `least` seconds are spent."""
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for call in (ours, theirs):
        call()  # tables are made once, and not in the first repeat
    for _ in range(repeats):
        for side, call in (("ours", ours), ("theirs", theirs)):
            calls, began = 0, time.process_time()
            while not calls or time.process_time() - began < least:
                call()
                calls += 1
            found[side].append((time.process_time() - began) / calls)
    return found
