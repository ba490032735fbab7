"""Finite K: what calibrating with K rollouts, and no more, leaves of a win rate.

With K reference rewards only the rank of a response is known, so the policy that training converges
to has a density that is constant between neighbouring reference quantiles. For one draw of those
quantiles everything is a finite sum; the expectation is over the draw.
"""

import functools

import numpy as np
from jaxtyping import Float

from infalign.quantile.procedures import RankProcedure
from infalign.quantile.transforms import Transform

__all__ = ["finite_win_rate", "largest_kl"]


def largest_kl(k: int) -> float:
    """Σ_{i≤k} 1/i: the KL of putting all mass above the best of K calibration rollouts. Nats.

    No training on K rollouts can aim further; −log of the top gap, Beta(1, K), has this mean.

    Example:
        >>> round(largest_kl(64), 3)
        4.744
    """
    return float(np.sum(1 / np.arange(1, k + 1)))


def finite_win_rate(
    transform: Transform,
    procedure: RankProcedure,
    k: int,
    kl: float,
    *,
    draws: int = 400,
    rng: np.random.Generator | None = None,
) -> float:
    """Win rate after decoding of the tilt that K calibration rollouts allow, at a given true KL.

    The density on the r-th gap between the K sorted reference quantiles is exp(Φ̄_K(r)/β)/Z, with
    Φ̄_K(r) the posterior mean of Φ. KL and win rate are those of the true law, averaged over
    `draws` draws of the K quantiles (standard error below 0.001 at the default).

    Args:
        transform: Φ.
        procedure: decodes both sides.
        k: calibration rollouts per prompt, ≥ 2.
        kl: mean KL from the reference over the draws, nats, > 0.
        draws: how many calibrations are averaged.
        rng: makes them; seed 0 where None.

    Raises:
        ValueError: a KL that K rollouts cannot express.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> from infalign.quantile.transforms import Exponential
        >>> few, many = (finite_win_rate(Exponential(10), BestOfN(4), k, 0.5) for k in (16, 256))
        >>> few < many < 0.8716
        True
    """
    from scipy.optimize import brentq

    rng = rng or np.random.default_rng(0)
    edges = np.sort(rng.random((draws, k)), axis=1)
    edges = np.concatenate([np.zeros((draws, 1)), edges, np.ones((draws, 1))], axis=1)
    gaps = np.diff(edges, axis=1)
    phi = transform.rank_means(k)

    @functools.cache
    def log_density(log_beta: float) -> Float[np.ndarray, "D K+1"]:
        tilt = phi / np.exp(log_beta)
        tilt = tilt - tilt.max()
        return tilt - np.log((gaps * np.exp(tilt)).sum(1, keepdims=True))

    def excess(log_beta: float) -> float:
        log_f = log_density(log_beta)
        return float((gaps * np.exp(log_f) * log_f).sum(1).mean()) - kl

    scale = float(np.ptp(phi))
    low, high = np.log(scale * 1e-3), np.log(scale * 1e3)
    if not (kl > 0 and excess(low) > 0):
        raise ValueError(
            f"a KL of {kl} nats is out of reach with k = {k} calibration rollouts (at most about "
            f"{largest_kl(k):.2f}); use more rollouts or a smaller KL above 0."
        )
    density = np.exp(log_density(brentq(excess, low, high, xtol=1e-10)))
    return float(np.mean(_win_rates(edges, gaps, density, procedure)))


def _win_rates(
    edges: np.ndarray, gaps: np.ndarray, density: np.ndarray, procedure: RankProcedure
) -> Float[np.ndarray, "D"]:
    """1 − ∫ G(F) g du: F is linear on each gap and G a polynomial, so Gauss's rule is exact."""
    nodes, weights = np.polynomial.legendre.leggauss(procedure.candidates)
    place = (nodes + 1) / 2
    start = np.cumsum(gaps * density, axis=1) - gaps * density
    u = edges[:, :-1, None] + gaps[..., None] * place
    cdf = start[..., None] + (gaps * density)[..., None] * place
    lost = procedure.rank_cdf(np.clip(cdf, 0, 1)) * procedure.rank_density(u)
    return 1 - (lost * weights / 2 * gaps[..., None]).sum(axis=(1, 2))
