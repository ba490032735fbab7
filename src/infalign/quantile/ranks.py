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
    up_to = np.empty(rewards.shape, dtype=np.int64)
    for i, row in enumerate(rows):
        below[i] = np.searchsorted(sorted_rewards[row], rewards[i], side="left")
        up_to[i] = np.searchsorted(sorted_rewards[row], rewards[i], side="right")
    return below, up_to - below


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
