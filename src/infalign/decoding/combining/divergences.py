"""Divergences that combine policies: reverse KL, α with the forward KL, Jensen-Shannon."""

import dataclasses
from typing import final

import numpy as np
from scipy.special import log_expit, logsumexp

from infalign.decoding.combining.divergence import Divergence, excess

__all__ = ["Alpha", "JensenShannon", "ReverseKL"]

Array = np.ndarray


@final
@dataclasses.dataclass(frozen=True)
class ReverseKL(Divergence):
    """f(x) = x log x: π* ∝ π_ref^{1−Σw} Π π_i^{w_i}, a geometric mean where the weights sum to 1.

    Example:
        >>> halves, even = np.log([[[0.8, 0.2]], [[0.2, 0.8]]]), np.log([[0.5, 0.5]])
        >>> np.exp(ReverseKL().law(halves, even, np.array([0.5, 0.5]))).round(6).tolist()
        [[0.5, 0.5]]
    """

    @property
    def name(self) -> str:
        """Without parameters."""
        return "reverse KL"

    @property
    def is_factor(self) -> bool:
        """Yes."""
        return True

    def combined(self, log_ratios: Array, weights: Array) -> Array:
        """Σ w_i λ_i."""
        return np.tensordot(weights, log_ratios, 1)

    def log_inverse(self, log_ratio: Array, top: Array, combined: Array) -> Array:
        """A difference."""
        return log_ratio - (top - combined)

    def log_inverse_slope(self, log_ratio: Array, inverse: Array) -> Array:
        """1."""
        return np.ones(np.broadcast_shapes(np.shape(log_ratio), np.shape(inverse)))

    def without_constant(self, log_ratios: Array, weights: Array) -> Array:
        """Σ w_i λ_i."""
        return self.combined(log_ratios, weights)


@final
@dataclasses.dataclass(frozen=True)
class Alpha(Divergence):
    """f′(x) = (1 − x^−α)/α, 0 < α ≤ 1: between the reverse KL (α → 0) and the forward KL (α = 1).

    Args:
        alpha: α. The smaller, the more a policy may lose what the reference says.

    Raises:
        ValueError: not in (0, 1].
    """

    alpha: float
    """In (0, 1]."""

    def __post_init__(self) -> None:
        is_number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not is_number or not 0 < self.alpha <= 1:
            raise ValueError(
                f"alpha is {self.alpha}; it must lie in (0, 1], where 1 is the forward KL. For "
                "the limit 0 use 'reverse_kl'."
            )

    @property
    def name(self) -> str:
        """With α, or what it is better known as."""
        return "forward KL" if self.alpha == 1 else f"alpha-divergence {self.alpha:g}"

    def combined(self, log_ratios: Array, weights: Array) -> Array:
        """−log Σ w_i exp(−α λ_i): the sum itself is beyond floats where a λ is −800."""
        shape = (-1, *[1] * (log_ratios.ndim - 1))
        return -np.asarray(logsumexp(-self.alpha * log_ratios, axis=0, b=weights.reshape(shape)))

    def log_inverse(self, log_ratio: Array, top: Array, combined: Array) -> Array:
        """−log(x^−α + exp(−combined) − exp(−top))/α, all in logs."""
        log_own, below = -self.alpha * log_ratio, top - combined
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.maximum(-combined, -top) + np.log(-np.expm1(-np.abs(below)))
        return -_log_changed(log_own, change, below >= 0) / self.alpha

    def log_inverse_slope(self, log_ratio: Array, inverse: Array) -> Array:
        """(x*/x)^α."""
        return np.exp(self.alpha * (inverse - log_ratio))

    def without_constant(self, log_ratios: Array, weights: Array) -> Array:
        """−log(1 − Σ w_i + Σ w_i exp(−α λ_i))/α."""
        with np.errstate(divide="ignore"):
            rest = np.log(-excess(weights))
        return -np.logaddexp(rest, -self.combined(log_ratios, weights)) / self.alpha


@final
@dataclasses.dataclass(frozen=True)
class JensenShannon(Divergence):
    """f′(x) = log(2x/(1+x)): with q = π/(π + π_ref), log q* = Σ w_i log q_i − Z."""

    @property
    def name(self) -> str:
        """Without parameters."""
        return "Jensen-Shannon"

    def combined(self, log_ratios: Array, weights: Array) -> Array:
        """Σ w_i log q_i, q = x/(1+x)."""
        return np.tensordot(weights, log_expit(log_ratios), 1)

    def log_inverse(self, log_ratio: Array, top: Array, combined: Array) -> Array:
        """log q − log(1−q), q = exp(combined − top)·x/(1+x)."""
        below = top - combined
        with np.errstate(divide="ignore", over="ignore"):
            change = log_expit(log_ratio) + np.log(np.abs(np.expm1(-below)))
        log_rest = _log_changed(log_expit(-log_ratio), change, below >= 0)
        return log_expit(log_ratio) - below - log_rest

    def log_inverse_slope(self, log_ratio: Array, inverse: Array) -> Array:
        """(1 + x*)/(1 + x)."""
        return np.exp(log_expit(-log_ratio) - log_expit(-inverse))

    def without_constant(self, log_ratios: Array, weights: Array) -> Array:
        """log q − log(1−q), log q = Σ w_i log q_i + (Σ w_i − 1)·log 2."""
        log_q = self.combined(log_ratios, weights) + excess(weights) * np.log(2)
        with np.errstate(divide="ignore"):
            return log_q - np.log(-np.expm1(log_q))


def _log_changed(log_own: Array, log_change: Array, rises: Array) -> Array:
    """log(exp(log_own) ± exp(log_change)); −∞ where nothing is left."""
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.log1p(-np.exp(np.minimum(log_change - log_own, 0.0)))
        return np.where(rises, np.logaddexp(log_own, log_change), log_own + left)
