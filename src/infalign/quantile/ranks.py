"""Ranks among reference rewards, and the training reward of a rank: numpy only.

At finite K a calibrated, transformed reward is a table of K + 1 numbers, looked up at the rank of a
response among the K reference rewards of its prompt. Every path to a training reward, in this
process or inside another engine, goes through these functions and so ends at the same bits.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # engines import this module where nothing but numpy is installed
    from jaxtyping import Float, Int

__all__ = ["count_ranks", "posterior_means", "quantiles"]

FEW = 12
"""Up to so many rows a search for each is faster than one search for all."""
BATCH = 1 << 13
"""Rewards looked up at a time, so that what lies between stays in the processor's cache."""


def count_ranks(
    sorted_rewards: "Float[np.ndarray, 'P K']",
    rows: "Int[np.ndarray, 'M']",
    rewards: "Float[np.ndarray, 'M N']",
) -> "tuple[Int[np.ndarray, 'M N'], Int[np.ndarray, 'M N']]":
    """How many reference rewards lie below each reward, and how many equal it.

    Args:
        sorted_rewards: K reference rewards per prompt, ascending; may be memory-mapped.
        rows: the prompt that each row of `rewards` belongs to.
        rewards: N finite rewards for each of M prompts.

    Example:
        >>> below, ties = count_ranks(np.array([[1.0, 2.0, 2.0, 5.0]]), [0], np.array([[2.0, 9.0]]))
        >>> below.tolist(), ties.tolist()
        ([[1, 4]], [[2, 0]])
    """
    below = np.empty(rewards.shape, dtype=np.int64)
    ties = np.empty(rewards.shape, dtype=np.int64)
    if len(rows) <= FEW:
        for i, row in enumerate(rows):
            reference = sorted_rewards[row]
            below[i] = reference.searchsorted(rewards[i], side="left")
            ties[i] = reference.searchsorted(rewards[i], side="right")
        ties -= below
        return below, ties
    k, n = sorted_rewards.shape[1], rewards.shape[1]
    reference = np.ascontiguousarray(sorted_rewards).reshape(-1)
    starts = np.asarray(rows, dtype=np.int64) * k
    values, flat_below, flat_ties = (a.reshape(-1) for a in (rewards, below, ties))
    for first in range(0, values.size, BATCH):
        part = slice(first, min(first + BATCH, values.size))
        start = starts[part] if n == 1 else starts[np.arange(part.start, part.stop) // n]
        flat_below[part], flat_ties[part] = _ranks(reference, start, k, values[part])
    return below, ties


def _ranks(
    reference: np.ndarray, start: np.ndarray, k: int, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of each value among the `k` entries of `reference` that begin at its `start`."""
    below = _search(reference, start, k, values, np.less)
    ties = np.zeros_like(below)
    at = np.minimum(below, k - 1) + start
    tied = np.flatnonzero((reference.take(at) == values) & (below < k))
    if len(tied):
        up_to = _search(reference, start[tied], k, values[tied], np.less_equal)
        ties[tied] = up_to - below[tied]
    return below, ties


def _search(
    reference: np.ndarray, start: np.ndarray, k: int, values: np.ndarray, precedes: np.ufunc
) -> np.ndarray:
    """How many of the `k` entries precede each value: halving, in step for all values.

    Whatever the comparisons say, the same number of steps is made: no branch to mispredict, and
    numpy makes each step for all values at once.
    """
    position = start.copy()
    left = k
    while left > 1:
        half = left // 2
        position += half * precedes(reference.take(position + (half - 1)), values)
        left -= half
    position += precedes(reference.take(position), values)
    return position - start


def quantiles(below: np.ndarray, ties: np.ndarray, k: int) -> np.ndarray:
    """u = (below + ½·ties)/k in [0, 1].

    Example:
        >>> quantiles(np.array([1]), np.array([2]), 4).tolist()
        [0.5]
    """
    return (below + 0.5 * ties) / k


def posterior_means(
    rank_means: "Float[np.ndarray, 'K+1']", below: np.ndarray, ties: np.ndarray
) -> np.ndarray:
    """Training reward of a response tied with `ties` reference rewards, `below` of them below it.

    It is equally likely at every rank below … below + ties: the mean of the table over these.

    Args:
        rank_means: Φ̄(r) for every rank r = 0 … K, see `Transform.rank_means`.
        below: 0 … K.
        ties: 0 … K − below.

    Example:
        >>> table = np.array([0.25, 0.5, 0.75])
        >>> posterior_means(table, np.array([0, 1]), np.array([0, 1])).tolist()
        [0.25, 0.625]
    """
    if not np.any(ties):
        return rank_means[below]
    sums = np.concatenate([[0.0], np.cumsum(rank_means)])
    means = (sums[below + ties + 1] - sums[below]) / (ties + 1)
    return np.where(ties == 0, rank_means[below], means)
