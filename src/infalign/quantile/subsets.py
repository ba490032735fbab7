"""How often each of m ranked samples is the one a rank procedure picks from a random N of them.

A rank procedure draws N candidates and keeps the one at a random rank. Averaging its pick over
*all* size-N subsets of m samples is the unbiased estimate of least variance, and it needs no
enumeration: the i-th smallest of m samples has r−1 chosen samples below it and N−r above it in
C(i−1, r−1)·C(m−i, N−r) of the C(m, N) subsets.

Reference: theory of U-statistics; the best-of-N case is the pass@k estimator of
"Evaluating Large Language Models Trained on Code" (arXiv:2107.03374), generalised to any rank.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

__all__ = ["average_over_ties", "subset_weights"]


def subset_weights(m: int, rank_probabilities: Float[np.ndarray, "N"]) -> Float[np.ndarray, "m"]:
    """Probability that the i-th smallest of m samples is picked, over all size-N subsets.

    w_i = Σ_r p_r·C(i−1, r−1)·C(m−i, N−r) / C(m, N), i = 1..m; they sum to 1.

    Args:
        m: Number of samples. ≥ N.
        rank_probabilities: p_r, the probability of keeping the r-th smallest of N candidates.

    Raises:
        ValueError: N > m: a subset of N needs N samples.

    Example:
        Best-of-2 among three samples never picks the smallest:

        >>> subset_weights(3, np.array([0.0, 1.0])).round(3).tolist()
        [0.0, 0.333, 0.667]
    """
    n = len(rank_probabilities)
    if n > m:
        raise ValueError(
            f"the procedure draws {n} candidates but there are only {m} samples per prompt; "
            f"averaging over subsets of {n} needs at least {n}. Sample more responses, or use a "
            "smaller N."
        )
    i = np.arange(1, m + 1)[:, None]
    r = np.arange(1, n + 1)[None, :]
    # Logarithms of binomials: the binomials themselves overflow near m = 1000.
    log_count = _log_binomial(i - 1, r - 1) + _log_binomial(m - i, n - r)
    log_all = _log_binomial(np.array(m), np.array(n))
    weights = np.exp(log_count - log_all) @ np.asarray(rank_probabilities, dtype=float)
    return weights / weights.sum()


def average_over_ties(
    values: Float[np.ndarray, "P m"], sorted_weights: Float[np.ndarray, "m"]
) -> Float[np.ndarray, "P m"]:
    """Gives each sample the weight of its rank; tied samples share theirs equally.

    Equal sharing is the expectation of breaking ties at random.

    Args:
        values: What the ranks are taken of, smaller first.
        sorted_weights: Weight of the i-th smallest.

    Example:
        >>> average_over_ties(np.array([[2.0, 1.0, 2.0]]), np.array([0.0, 0.2, 0.8])).tolist()
        [[0.5, 0.0, 0.5]]
    """
    order = np.argsort(values, axis=-1, kind="stable")
    start, end = tie_bounds(np.take_along_axis(values, order, -1))
    total = np.concatenate([[0.0], np.cumsum(sorted_weights)])
    shared = np.empty(values.shape)
    np.put_along_axis(shared, order, (total[end] - total[start]) / (end - start), -1)
    return shared


def tie_bounds(
    ordered: Float[np.ndarray, "P m"],
) -> tuple[np.ndarray, np.ndarray]:
    """For rows sorted ascending: first position of each entry's tie group, and one past its last.

    Example:
        >>> start, end = tie_bounds(np.array([[1.0, 2.0, 2.0]]))
        >>> start.tolist(), end.tolist()
        ([[0, 1, 1]], [[1, 3, 3]])
    """
    m = ordered.shape[-1]
    change = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*ordered.shape[:-1], 1), dtype=bool)
    position = np.arange(m)
    is_first = np.concatenate([edge, change], -1)
    is_last = np.concatenate([change, edge], -1)
    start = np.maximum.accumulate(np.where(is_first, position, 0), axis=-1)
    last = np.where(is_last, position, m)[..., ::-1]
    return start, np.minimum.accumulate(last, axis=-1)[..., ::-1] + 1


def _log_binomial(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    possible = (k >= 0) & (k <= n)
    safe = np.where(possible, k, 0)
    value = gammaln(n + 1) - gammaln(safe + 1) - gammaln(np.maximum(n - safe, 0) + 1)
    return np.where(possible, value, -np.inf)
