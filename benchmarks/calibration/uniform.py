"""Are quantiles uniform under the reference, and is that a property of every prompt?

With K calibrating answers a quantile lies on a grid and ties share one place, so û itself is never
uniform. What is: V = (below + U·(ties + 1))/(K + 1) with U uniform on [0,1], exactly, for an answer
that is exchangeable with those that calibrate it. So V is what is tested.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from infalign.evaluation import Estimate, estimate
from infalign.quantile.ranks import count_ranks, quantiles

__all__ = ["placed", "pull_to_half", "rejected_prompts", "spread_of", "uniformity"]

Ranked = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, int]]
"""Draws one answer per prompt: below "P", ties "P", K."""


def placed(
    below: Int[np.ndarray, "P"], ties: Int[np.ndarray, "P"], k: int, rng: np.random.Generator
) -> Float[np.ndarray, "P"]:
    """V = (below + U·(ties + 1))/(K + 1)."""
    return (below + rng.random(below.shape) * (ties + 1)) / (k + 1)


def uniformity(
    scores: Float[np.ndarray, "P C"], k: int, repeats: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Kolmogorov–Smirnov test of V, one answer per prompt so that prompts are independent.

    Ways to calibrate an answer: by K − 1 others of its K (left out), by all K and itself as if it
    were a new one (left in), by K of the worse half of the systems (columns sorted by mean): not
    exchangeable with an answer of any system. Repeats redraw which answers.

    Returns:
        For each way the median distance, the share of repeats that reject at 5 %, and the distance
        of V of all repeats together.
    """
    ways = {
        "left out": lambda: _among(scores, k, rng, itself=False),
        "left in": lambda: _among(scores, k, rng, itself=True),
        "other systems": lambda: _by_others(scores, k, rng),
    }
    found = {}
    for way, draw in ways.items():
        drawn = [placed(*draw(), rng) for _ in range(repeats)]
        tests = [stats.kstest(values, "uniform") for values in drawn]
        found[way] = {
            "distance": float(np.median([test.statistic for test in tests])),
            "rejected": float(np.mean([test.pvalue < 0.05 for test in tests])),
            "distance of all": float(stats.kstest(np.concatenate(drawn), "uniform").statistic),
            "mean": float(np.mean(drawn)),
        }
    return found


def _among(
    scores: np.ndarray, k: int, rng: np.random.Generator, *, itself: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    drawn = rng.permuted(scores, axis=1)[:, :k]
    below, ties = count_ranks(np.sort(drawn, axis=1), np.arange(len(drawn)), drawn[:, :1])
    if itself:
        return below[:, 0], ties[:, 0], k
    return below[:, 0], ties[:, 0] - 1, k - 1


def _by_others(
    scores: np.ndarray, k: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    worse = np.argsort(scores.mean(0))[: scores.shape[1] // 2]
    known = rng.permuted(scores[:, worse], axis=1)[:, : min(k, len(worse))]
    fresh = rng.permuted(scores, axis=1)[:, :1]
    below, ties = count_ranks(np.sort(known, axis=1), np.arange(len(known)), fresh)
    return below[:, 0], ties[:, 0], known.shape[1]


def rejected_prompts(
    scores: Float[np.ndarray, "P C"], rng: np.random.Generator, splits: int = 10
) -> dict[str, float]:
    """Share of prompts whose own answers are not uniform, at 5 %: by the prompt, by all prompts.

    Half of a prompt's answers calibrate the other half (two-sample KS, exact); a global calibration
    ranks the other half among the answers to all prompts (one-sample KS). Ties at random; the mean
    over random halves.
    """
    found = [_rejected(_without_ties(scores, rng), rng) for _ in range(splits)]
    own, overall, distance = np.mean(found, axis=0).tolist()
    return {"own": own, "global": overall, "distance of global": distance}


def _rejected(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    half = scores.shape[1] // 2
    drawn = rng.permuted(scores, axis=1)
    own = [stats.ks_2samp(row[:half], row[half:]).pvalue < 0.05 for row in drawn]
    pool = np.sort(drawn[:, :half].ravel())
    tests = [
        stats.kstest(row, "uniform") for row in np.searchsorted(pool, drawn[:, half:]) / len(pool)
    ]
    overall = [test.pvalue < 0.05 for test in tests]
    return np.mean(own), np.mean(overall), np.mean([test.statistic for test in tests])


def _without_ties(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ranks among all answers to all prompts, ties in random order."""
    order = np.lexsort((rng.random(scores.size), scores.ravel()))
    ranks = np.empty(scores.size)
    ranks[order] = np.arange(scores.size)
    return ranks.reshape(scores.shape)


def pull_to_half(
    scores: Float[np.ndarray, "P C"], k: int, repeats: int, rng: np.random.Generator
) -> dict[str, Estimate]:
    """Slope of û − u against ½ − u: 0 when left out, 1/K when left in.

    u is the quantile among all other answers, û among K of which the answer is one.
    """
    slopes: dict[str, list[np.ndarray]] = {"left out": [], "left in": []}
    below, ties = count_ranks(np.sort(scores, axis=1), np.arange(len(scores)), scores)
    true = quantiles(below, ties - 1, scores.shape[1] - 1)
    for _ in range(repeats):
        columns = rng.permuted(np.tile(np.arange(scores.shape[1]), (len(scores), 1)), axis=1)[:, :k]
        drawn, u = (np.take_along_axis(table, columns, 1) for table in (scores, true))
        low, tied = count_ranks(np.sort(drawn, axis=1), np.arange(len(drawn)), drawn)
        ways = {
            "left out": quantiles(low, tied - 1, k - 1),
            "left in": quantiles(low, tied, k),
        }
        for way, estimated in ways.items():
            slopes[way].append(_slopes(0.5 - u, estimated - u, true))
    return {way: estimate(np.mean(each, axis=0)) for way, each in slopes.items()}


def _slopes(x: np.ndarray, y: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Per prompt: its part of Σxy/Σx², whose mean over prompts is the slope."""
    return (x * y).mean(1) / ((0.5 - true) ** 2).mean()


def spread_of(scores: Float[np.ndarray, "P C"]) -> dict[str, float | list[float]]:
    """Where a global calibration puts each prompt's answers: their medians, and what is shared."""
    flat = stats.rankdata(scores.ravel()).reshape(scores.shape)
    overall = (flat - 0.5) / scores.size
    medians = np.median(overall, axis=1)
    between = overall.mean(1).var() / overall.var()
    low, high = np.quantile(overall, [0.1, 0.9], axis=1)
    return {
        "medians at 10, 50, 90 %": np.quantile(medians, [0.1, 0.5, 0.9]).tolist(),
        "share of variance between prompts": float(between),
        "median width of 80 % of a prompt's answers": float(np.median(high - low)),
        "medians": np.quantile(medians, np.linspace(0, 1, 101)).tolist(),
    }
