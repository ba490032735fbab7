"""How far chains have come: what their states are worth, and whether they agree.

Both by arviz-stats, on the trace of rewards: rank-normalised, each chain split in half. Where a
number means nothing (too short a trace, rewards that never change, one chain) there is none.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["effective_samples", "split_r_hat"]

_FEWEST = 4
"""States; fewer cannot be split into halves that vary."""


def effective_samples(traces: Float[np.ndarray, "M T"]) -> float | None:
    """How many independent draws M traces of T states are worth (bulk).

    Reference:
        Rank-normalization, folding, and localization: an improved R̂ (arXiv:1903.08008).

    Example:
        >>> independent = np.random.default_rng(0).normal(size=(4, 500))
        >>> 1700 < effective_samples(independent) < 2300
        True
        >>> effective_samples(np.ones((4, 500))) is None
        True
    """
    return _measured("ess", traces)


def split_r_hat(traces: Float[np.ndarray, "M T"]) -> float | None:
    """R̂ of M ≥ 2 traces, each split in half: 1 where they agree.

    Example:
        >>> apart = np.random.default_rng(0).normal(size=(2, 100)) + np.array([[0.0], [3.0]])
        >>> split_r_hat(apart) > 1.5
        True
    """
    return None if len(traces) < 2 else _measured("rhat", traces)


def _measured(what: str, traces: np.ndarray) -> float | None:
    moves = np.isfinite(traces).all() and np.ptp(traces) > 0
    if traces.shape[1] < _FEWEST or not moves:
        return None
    from arviz_stats.base.array import array_stats

    # Single traces that never move divide 0 by 0 on the way; what comes of it is looked at below.
    with np.errstate(all="ignore"):
        number = float(getattr(array_stats, what)(traces, chain_axis=0, draw_axis=1))
    return number if np.isfinite(number) else None
