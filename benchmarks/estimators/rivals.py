"""How else decoded win rates and rewards are estimated from m samples of each prompt.

Each is written as the estimate it is, so that bias and spread are its own: `with_replacement` is
what a bootstrap of best@N converges to with endless resamples. `verl_best` runs the released code.
"""

import ast
import itertools
import math
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from infalign.evaluation import compare
from infalign.quantile.subsets import average_over_ties

__all__ = [
    "REWARDS",
    "WIN_RATES",
    "enumerated",
    "enumerated_arrays",
    "grid_of_verl",
    "pass_at_k",
    "verl_best",
]

Array = np.ndarray


def with_replacement(a: Array, b: Array, n: int) -> Float[np.ndarray, "P"]:
    """Best of N drawn with replacement from the samples of a side, on both sides."""
    ours, theirs = (average_over_ties(side, _repeated(side.shape[1], n)) for side in (a, b))
    return compare(a, ours, b, theirs)


def disjoint_groups(a: Array, b: Array, n: int) -> Float[np.ndarray, "P"]:
    """Bests of ⌊m/N⌋ groups that share no sample, every group of one side against every other."""
    ours, theirs = (_group_bests(side, n) for side in (a, b))
    return compare(ours, _even(ours), theirs, _even(theirs))


def one_decode(a: Array, b: Array, n: int) -> Float[np.ndarray, "P"]:
    """The first N samples of either side: decoded once, as it is used."""
    return disjoint_groups(a[:, :n], b[:, :n], n)


def reward_with_replacement(rewards: Array, n: int) -> Float[np.ndarray, "P"]:
    """Best@N as the mean over resamples with replacement."""
    return np.sort(rewards, axis=1) @ _repeated(rewards.shape[1], n)


def reward_of_groups(rewards: Array, n: int) -> Float[np.ndarray, "P"]:
    """Best@N as the mean of the bests of disjoint groups."""
    return _group_bests(rewards, n).mean(axis=1)


WIN_RATES: dict[str, Callable[[Array, Array, int], Array]] = {
    "with replacement": with_replacement,
    "disjoint groups": disjoint_groups,
    "one decode": one_decode,
}
"""(policy rewards, reference rewards, N) → an estimate per prompt."""
REWARDS: dict[str, Callable[[Array, int], Array]] = {
    "with replacement": reward_with_replacement,
    "disjoint groups": reward_of_groups,
}
"""(rewards, N) → an estimate of the best one's reward per prompt."""


def pass_at_k(correct: Array, samples: int, k: int) -> Float[np.ndarray, "P"]:
    """1 − Π_{i=n−c+1}^{n} (1 − k/i), a product per problem, as HumanEval's paper gives it.

    Reference: arXiv:2107.03374, its numerically stable form, one problem after another.
    """
    values = []
    for passed in correct:
        if samples - passed < k:
            values.append(1.0)
        else:
            values.append(1.0 - np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))
    return np.array(values)


def enumerated(a: Array, b: Array, n: int) -> float:
    """One prompt's best-of-N win rate by its definition: all subsets against all subsets."""
    ours, theirs = ([max(s) for s in itertools.combinations(side, n)] for side in (a, b))
    won = sum((x > y) + 0.5 * (x == y) for x in ours for y in theirs)
    return won / (len(ours) * len(theirs))


def enumerated_arrays(a: Array, b: Array, n: int) -> Float[np.ndarray, "P"]:
    """The same with arrays: subsets listed once, their bests compared after one sort."""
    ours, theirs = (
        np.sort(side, axis=1)[:, _subsets(side.shape[1], n)].max(axis=2) for side in (a, b)
    )
    return compare(ours, _even(ours), theirs, _even(theirs))


@cache
def _subsets(m: int, n: int) -> Array:
    return np.array(list(itertools.combinations(range(m), n)))


@cache
def verl_best() -> Callable[..., list[tuple[float, float]]] | None:
    """`bootstrap_metric` of the released verl; None where that is not unpacked.

    The function is compiled from the released file alone: the modules around it want more packages
    than this needs.
    """
    folder = Path(os.environ.get("INFALIGN_RELEASED") or Path(sys.prefix) / "released")
    path = folder / "verl" / "trainer" / "ppo" / "metric_utils.py"
    if not path.is_file():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "bootstrap_metric"
    ]
    space: dict[str, Any] = {"np": np, "Any": Any, "Callable": Callable}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), space)
    return space["bootstrap_metric"]


def grid_of_verl(m: int) -> list[int]:
    """The N it reports: powers of two below m, and m."""
    return [2**power for power in range(1, math.ceil(math.log2(m)))] + [m]


def _repeated(m: int, n: int) -> Float[np.ndarray, "m"]:
    return np.diff((np.arange(m + 1) / m) ** n)


def _group_bests(samples: Array, n: int) -> Float[np.ndarray, "P g"]:
    groups = samples.shape[1] // n
    return samples[:, : groups * n].reshape(len(samples), groups, n).max(axis=2)


def _even(values: Array) -> Array:
    return np.full(values.shape, 1 / values.shape[1])
