"""The best and the worst of n draws from a store, summed over all draws.

From a known law draws are independent; of K stored rollouts they are the subsets of n, because
drawing one rollout twice would make the best of n look worse than it is.
"""

import numpy as np
from jaxtyping import Float

from benchmarks.arena.store import Store
from infalign.training.rewards import quantile_intervals

__all__ = ["best_and_worst", "best_of"]


def best_of(store: Store, n: int) -> Float[np.ndarray, "P C"]:
    """Probability of each response to be the best of n; ties are broken by chance.

    Example:
        >>> best_of(Store(np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]])), 2).tolist()
        [[0.25, 0.75]]
        >>> best_of(Store(np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]), k=2), 2).tolist()
        [[0.0, 1.0]]
    """
    low, high = quantile_intervals(store.masses, store.rewards)
    return (_all(store, n, high) - _all(store, n, low)) * _share(store, low, high)


def best_and_worst(store: Store, n: int) -> Float[np.ndarray, "P C C"]:
    """Probability that i is the best of n and j the worst, indexed [x, i, j].

    Of draws that are all equally good, one is called best and one worst by chance.
    """
    low, high = quantile_intervals(store.masses, store.rewards)
    top, bottom = (low[:, :, None], high[:, :, None]), (low[:, None, :], high[:, None, :])
    apart = (
        _all(store, n, top[1] - bottom[0])
        - _all(store, n, top[1] - bottom[1])
        - _all(store, n, top[0] - bottom[0])
        + _all(store, n, top[0] - bottom[1])
    )
    lead = np.sign(store.rewards[:, :, None] - store.rewards[:, None, :])
    both = np.select([lead > 0, lead == 0], [apart, _all(store, n, top[1] - top[0])], 0.0)
    share = _share(store, low, high)
    return both * share[:, :, None] * share[:, None, :]


def _all(store: Store, n: int, mass: np.ndarray) -> np.ndarray:
    """Chance that all n draws fall where `mass` is: mass^n, or C(mass·K, n)/C(K, n)."""
    mass = np.maximum(mass, 0.0)
    if store.k is None:
        return mass**n
    if n > store.k:
        raise ValueError(f"the best of {n} was asked for, of {store.k} rollouts; lower n.")
    left = np.rint(mass * store.k)[..., None] - np.arange(n)
    return np.prod(np.maximum(left, 0.0) / (store.k - np.arange(n)), axis=-1)


def _share(store: Store, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Mass of each response within its tie."""
    tie = high - low
    return np.divide(store.masses, tie, out=np.zeros_like(tie), where=store.masses > 0)
