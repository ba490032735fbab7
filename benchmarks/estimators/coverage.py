"""Does a 95 % interval hold the truth 95 times in a hundred?

An experiment draws prompts and samples anew; the truth is the mean over the population of prompts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.estimators.bias import Known
from benchmarks.estimators.rivals import WIN_RATES
from infalign.evaluation import win_rates_every_n

__all__ = ["coverage"]


def coverage(
    known: Known,
    m: int,
    ns: Sequence[int],
    prompts: int,
    experiments: int,
    rng: np.random.Generator,
    *,
    draws: int = 100,
) -> list[dict[str, Any]]:
    """Share of experiments whose interval holds the mean win rate over the population.

    Estimates are those of `draws` sample sets of each prompt, one of which every experiment picks
    for each of its prompts. `not clustered` takes each of the disjoint groups of a prompt as an
    independent trial that is won or lost, which they are not.
    """
    names = ("all subsets", *WIN_RATES)
    kept: dict[tuple[str, int], list[np.ndarray]] = {(name, n): [] for name in names for n in ns}
    for _ in range(draws):
        a, b = known.draw(m, rng)
        every = win_rates_every_n(a, b, ns=ns)
        for column, n in enumerate(ns):
            kept["all subsets", n].append(every[:, column])
            for name, rival in WIN_RATES.items():
                kept[name, n].append(rival(a, b, n))
    population = len(kept["all subsets", ns[0]][0])
    rows = rng.integers(population, size=(experiments, prompts))
    columns = rng.integers(draws, size=rows.shape)
    found = []
    for (name, n), each in kept.items():
        truth, values = float(known.win_rate(n).mean()), np.array(each)[columns, rows]
        row = {"law": known.name, "m": m, "n": n, "prompts": prompts, "estimator": name}
        se = values.std(1, ddof=1) / math.sqrt(prompts)
        found.append(row | _covered(values, truth, se, prompts - 1))
        if name == "disjoint groups":
            mean, trials = values.mean(1), prompts * (m // n)
            se = np.sqrt(mean * (1 - mean) / trials)
            row["estimator"] = "not clustered"
            found.append(row | _covered(values, truth, se, trials - 1))
    return found


def _covered(values: np.ndarray, truth: float, se: np.ndarray, freedom: int) -> dict[str, float]:
    """How often, over experiments (rows of `values`), and how wide."""
    half = stats.t.ppf(0.975, freedom) * se
    held = np.abs(values.mean(1) - truth) <= half
    error = float(np.sqrt(held.mean() * (1 - held.mean()) / len(held)))
    return {"covered": float(held.mean()), "se": error, "half width": float(half.mean())}
