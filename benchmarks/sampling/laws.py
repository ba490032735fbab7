"""A two-sample test for responses to the same prompts: exact, because samples of a prompt swap."""

import numpy as np
from scipy import stats


def permutation_p(one: np.ndarray, other: np.ndarray, rounds: int = 1999, seed: int = 0) -> float:
    """p-value of "both are drawn from one law at every prompt".

    Values are ranked among all of their prompt, so that prompts count alike; the statistic is the
    Kolmogorov–Smirnov distance of the ranks. Under the hypothesis the labels of a prompt's samples
    can be exchanged, so the test holds its level at any size, with prompts as different as they
    like.

    Args:
        one: P n.
        other: P m, the same prompts.
        rounds: exchanges drawn; the least p-value is 1/(rounds + 1).
    """
    pooled = np.concatenate([one, other], axis=1)
    ranks = stats.rankdata(pooled, axis=1)
    order = np.argsort(ranks, axis=None, kind="stable")
    ends = np.append(np.diff(ranks.ravel()[order]) > 0, True)
    labels = np.repeat([1 / one.size, -1 / other.size], [one.shape[1], other.shape[1]])
    labels = np.broadcast_to(labels, pooled.shape)

    def distance(labels: np.ndarray) -> float:
        return float(np.abs(labels.ravel()[order].cumsum()[ends]).max())

    found, rng = distance(labels), np.random.default_rng(seed)
    beyond = sum(distance(rng.permuted(labels, axis=1)) >= found - 1e-12 for _ in range(rounds))
    return (1 + beyond) / (1 + rounds)
