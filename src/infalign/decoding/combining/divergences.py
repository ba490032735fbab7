"""f-divergences that keep a policy near its reference, and what they make of several policies.

A policy that maximises E[R_i] − β·D_f(π‖π_ref) satisfies R_i/β = f′(π_i/π_ref) + Z_i: it knows its
reward up to a constant. So the optimum for Σ w_i R_i needs no training:

    π* = π_ref · (f′)⁻¹( Σ_i w_i f′(π_i/π_ref) − Z ),    Z such that π* sums to 1.

Everything is done with log-ratios λ_i = log π_i/π_ref: a response of a hundred tokens has ratios
that no float holds.

Reference: Decoding-Time Language Model Alignment with Multiple Objectives (arXiv:2406.18853). There
Z is dropped, which is right for the reverse KL only; here it is solved for, see :meth:`law`.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float
from scipy.special import expit, log_expit, logsumexp

__all__ = [
    "Alpha",
    "Divergence",
    "JensenShannon",
    "Level",
    "ReverseKL",
    "log_ratios",
]

Array = np.ndarray


class Level(NamedTuple):
    """The constant Z of each row, told as the ratio at the row's highest atom."""

    top: Float[Array, "R"]
    """Largest Σ w_i f′ of the row."""
    log_ratio: Float[Array, "R"]
    """log π*/π_ref there."""


class Divergence(ABC):
    """D_f(π‖π_ref) = E_ref[f(π/π_ref)], with f′ → −∞ at 0, so that f′ has an inverse."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human."""

    @property
    def is_factor(self) -> bool:
        """Whether Z only multiplies, so that normalising is solving: for the reverse KL."""
        return False

    @abstractmethod
    def combined(
        self, log_ratios: Float[Array, "M *rows"], weights: Float[Array, "M"]
    ) -> Float[Array, "*rows"]:
        """c·Σ w_i f′(exp λ_i) up to a constant, c > 0: what orders atoms by combined reward."""

    @abstractmethod
    def log_inverse(
        self, log_ratio: Float[Array, "..."], drop: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """log π*/π_ref of an atom whose :meth:`combined` is `drop` below one of `log_ratio`.

        +∞ where (f′)⁻¹ has no value: so far above, if `drop` is negative.
        """

    @abstractmethod
    def log_inverse_slope(
        self, log_ratio: Float[Array, "..."], drop: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Derivative of :meth:`log_inverse` by its first argument, in [0, 1]."""

    @abstractmethod
    def without_constant(
        self, log_ratios: Float[Array, "M *rows"], weights: Float[Array, "M"]
    ) -> Float[Array, "*rows"]:
        """log (f′)⁻¹(Σ w_i f′(exp λ_i)): Z dropped, as the paper scores beginnings."""

    def level(
        self, log_base: Float[Array, "R V"], combined: Float[Array, "R V"], tolerance: float = 1e-14
    ) -> Level:
        """Solve Σ_v exp(log_base)·(f′)⁻¹(combined − Z) = 1 in every row.

        In u, the log-ratio at the highest atom, the logarithm of the sum rises with slope in
        (0, 1], and u lies between −log Σ base (every ratio is at most the highest) and −log base of
        that atom (one atom's mass is at most 1). Newton's steps, and halving where one leaves.

        Args:
            log_base: logarithms of the reference's masses, or of weights that estimate them.
            combined: of each atom; −∞ where π* is 0.
            tolerance: of u.

        Raises:
            ValueError: no atom that all policies can reach.
        """
        _require_support(combined)
        at = combined.argmax(1)[:, None]
        top = np.take_along_axis(combined, at, 1)
        drop = np.where(combined > -np.inf, top - combined, np.inf)
        low = -np.asarray(logsumexp(log_base, axis=1, keepdims=True))
        high = np.maximum(low, -np.take_along_axis(log_base, at, 1))
        u = low
        for _ in range(200):
            terms = log_base + self.log_inverse(u, drop)
            total = np.asarray(logsumexp(terms, axis=1, keepdims=True))
            low, high = np.where(total <= 0, u, low), np.where(total >= 0, u, high)
            shares = np.exp(terms - total)
            # An atom without mass has no slope either; its derivative may be NaN.
            slopes = np.where(shares > 0, self.log_inverse_slope(u, drop), 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                new = u - total / (shares * slopes).sum(1, keepdims=True)
            new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
            done = np.abs(new - u).max(initial=0) <= tolerance * (1 + np.abs(u).max(initial=0))
            u = new
            if done:
                break
        return Level(top[:, 0], u[:, 0])

    def law(
        self,
        log_laws: Float[Array, "M R V"],
        log_reference: Float[Array, "R V"],
        weights: Float[Array, "M"],
    ) -> Float[Array, "R V"]:
        """log π* of each row's atoms: the optimum, Z solved for. Nats, normalised.

        Raises:
            ValueError: no atom that all policies can reach.
        """
        if self.is_factor:
            raw = self.score(log_laws, log_reference, weights)
            _require_support(raw)
            return raw - np.asarray(logsumexp(raw, axis=1, keepdims=True))
        combined = self.combined(log_ratios(log_laws, log_reference), weights)
        raw = log_reference + self.log_ratio(self.level(log_reference, combined), combined)
        return raw - np.asarray(logsumexp(raw, axis=1, keepdims=True))

    def log_ratio(self, level: Level, combined: Float[Array, "R V"]) -> Float[Array, "R V"]:
        """log π*/π_ref of atoms, once the constant of their row is known."""
        drop = np.where(combined > -np.inf, level.top[:, None] - combined, np.inf)
        return self.log_inverse(level.log_ratio[:, None], drop)

    def score(
        self,
        log_laws: Float[Array, "M *rows"],
        log_reference: Float[Array, "*rows"],
        weights: Float[Array, "M"],
    ) -> Float[Array, "*rows"]:
        """log of the formula with Z dropped: not normalised, and for the reverse KL up to Z."""
        return log_reference + self.without_constant(log_ratios(log_laws, log_reference), weights)


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

    def log_inverse(self, log_ratio: Array, drop: Array) -> Array:
        """A difference."""
        return log_ratio - drop

    def log_inverse_slope(self, log_ratio: Array, drop: Array) -> Array:
        """1."""
        return np.ones(np.broadcast_shapes(np.shape(log_ratio), np.shape(drop)))

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
        """−Σ w_i exp(−α λ_i)."""
        with np.errstate(over="ignore"):
            return -np.tensordot(weights, np.exp(-self.alpha * log_ratios), 1)

    def log_inverse(self, log_ratio: Array, drop: Array) -> Array:
        """−log(x^−α + drop)/α."""
        with np.errstate(divide="ignore", invalid="ignore"):
            inner = np.exp(-self.alpha * log_ratio) + drop
            return np.where(inner > 0, -np.log(inner) / self.alpha, np.inf)

    def log_inverse_slope(self, log_ratio: Array, drop: Array) -> Array:
        """x^−α/(x^−α + drop)."""
        inner = np.exp(-self.alpha * log_ratio)
        return inner / (inner + drop)

    def without_constant(self, log_ratios: Array, weights: Array) -> Array:
        """−log(Σ w_i exp(−α λ_i))/α."""
        shape = (-1, *[1] * (log_ratios.ndim - 1))
        summed = logsumexp(-self.alpha * log_ratios, axis=0, b=weights.reshape(shape))
        return -np.asarray(summed) / self.alpha


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

    def log_inverse(self, log_ratio: Array, drop: Array) -> Array:
        """log q − log(1−q), q = exp(−drop)·x/(1+x)."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            rest = expit(-log_ratio) - expit(log_ratio) * np.expm1(-drop)
            return np.where(rest > 0, log_expit(log_ratio) - drop - np.log(rest), np.inf)

    def log_inverse_slope(self, log_ratio: Array, drop: Array) -> Array:
        """(1 − x/(1+x))/(1 − q)."""
        away = expit(-log_ratio)
        return away / (away - expit(log_ratio) * np.expm1(-drop))

    def without_constant(self, log_ratios: Array, weights: Array) -> Array:
        """log q − log(1−q), log q = Σ w_i log q_i."""
        log_q = self.combined(log_ratios, weights)
        with np.errstate(divide="ignore"):
            return log_q - np.log(-np.expm1(log_q))


def log_ratios(
    log_laws: Float[Array, "M *rows"], log_reference: Float[Array, "*rows"]
) -> Float[Array, "M *rows"]:
    """λ_i = log π_i/π_ref; −∞ where the reference cannot be, for nothing near it can."""
    reaches = log_reference > -np.inf
    with np.errstate(invalid="ignore"):
        return np.where(reaches, log_laws - np.where(reaches, log_reference, 0.0), -np.inf)


def _require_support(combined: Float[Array, "R V"]) -> None:
    if (combined.max(1) == -np.inf).any():
        raise ValueError(
            "the policies share nothing here: whatever one can say, another gives probability 0. "
            "Combine policies that were aligned from one reference."
        )
