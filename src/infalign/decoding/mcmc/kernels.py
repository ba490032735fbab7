"""Kernels: from what a state and its candidates weigh to the law of the next state.

A resampler G erases a part of y and draws it again from the policy; it is reversible with respect
to the policy, up to the number c(y) of parts it chooses from. With the log-weights
w(y) = log target/policy(y) − log c(y), both kernels leave the target invariant, for any number of
candidates.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

__all__ = ["KERNELS", "Kernel", "importance_resampling", "metropolis_hastings"]

Kernel = Callable[[Float[np.ndarray, "M C1"]], Float[np.ndarray, "M C1"]]
"""Log-weights of the present state (first) and of C candidates → probability of each to be next."""


def metropolis_hastings(log_weights: Float[np.ndarray, "M C1"]) -> Float[np.ndarray, "M C1"]:
    """Moves to the one candidate with probability min{1, exp(w(y') − w(y))}.

    Args:
        log_weights: of M states and one candidate each; −∞ is never moved to.

    Example:
        >>> metropolis_hastings(np.log([[2.0, 1.0], [1.0, 2.0]])).round(3).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    now, then = log_weights[:, 0], log_weights[:, 1]
    with np.errstate(invalid="ignore"):
        moves = np.exp(np.minimum(then - now, 0.0))
    moves = np.where(then == -np.inf, 0.0, moves)
    return np.stack([1 - moves, moves], axis=1)


def importance_resampling(log_weights: Float[np.ndarray, "M C1"]) -> Float[np.ndarray, "M C1"]:
    """i-SIR: the next state is one of all C + 1, the present one too, with probability ∝ exp w.

    Leaving out the present state, as a plain resampling step does, is biased for every finite C.

    Args:
        log_weights: of M states and C candidates each; where all are −∞ the state is kept.

    Reference:
        Iterated sampling importance resampling, from Particle Markov chain Monte Carlo methods
        (JRSS B 2010).

    Example:
        >>> importance_resampling(np.log([[2.0, 1.0, 1.0]])).round(3).tolist()
        [[0.5, 0.25, 0.25]]
    """
    top = log_weights.max(axis=1, keepdims=True)
    lost = top == -np.inf
    weights = np.exp(log_weights - np.where(lost, 0.0, top))
    weights[lost[:, 0], 0] = 1.0
    return weights / weights.sum(axis=1, keepdims=True)


KERNELS: Mapping[str, Kernel] = {"mh": metropolis_hastings, "isir": importance_resampling}
"""By name."""
