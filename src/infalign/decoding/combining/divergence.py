"""f-divergences that keep a policy near its reference, and what they make of several policies.

A policy that maximises E[R_i] − β·D_f(π‖π_ref) satisfies R_i/β = f′(π_i/π_ref) + Z_i: it knows its
reward up to a constant. So the optimum for Σ w_i R_i needs no training:

    π* = π_ref · (f′)⁻¹( Σ_i w_i f′(π_i/π_ref) − Z ),    Z such that π* sums to 1.

Everything is done with log-ratios λ_i = log π_i/π_ref: a response of a hundred tokens has ratios
that no float holds.

Reference: Decoding-Time Language Model Alignment with Multiple Objectives (arXiv:2406.18853). There
Z is dropped, which is right for the reverse KL only; here it is solved for, see :meth:`law`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

__all__ = [
    "Divergence",
    "Level",
    "excess",
    "log_ratios",
]

Array = np.ndarray
_SLACK = 1e-9


class Level(NamedTuple):
    """The constant Z of each row, told as the ratio at the row's highest atom."""

    top: Float[Array, "R"]
    """Largest :meth:`Divergence.combined` of the row."""
    log_ratio: Float[Array, "R"]
    """log π*/π_ref there."""


class Divergence(ABC):
    """D_f(π‖π_ref) = E_ref[f(π/π_ref)], with f′ → −∞ at 0, so that f′ has an inverse.

    f′(1) = 0, which is no loss: c·(x − 1) changes no divergence. So no weight at all is π_ref.
    """

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
        """A rising function of Σ w_i f′(exp λ_i): what orders atoms by combined reward."""

    @abstractmethod
    def log_inverse(
        self,
        log_ratio: Float[Array, "..."],
        top: Float[Array, "..."],
        combined: Float[Array, "..."],
    ) -> Float[Array, "..."]:
        """log π*/π_ref of an atom at `combined`, where one at `top` has `log_ratio`.

        +∞ where (f′)⁻¹ has no value: so far above, if `combined` is beyond `top`.
        """

    @abstractmethod
    def log_inverse_slope(
        self, log_ratio: Float[Array, "..."], inverse: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Derivative of `inverse`, a :meth:`log_inverse`, by its first argument. In [0, 1]."""

    @abstractmethod
    def without_constant(
        self, log_ratios: Float[Array, "M *rows"], weights: Float[Array, "M"]
    ) -> Float[Array, "*rows"]:
        """log (f′)⁻¹(Σ w_i f′(exp λ_i)): Z dropped, as the paper scores beginnings; Σ w_i ≤ 1."""

    def refuse_without_constant(self, weights: Sequence[float] | Float[Array, "M"]) -> None:
        """Refuse Σ w_i > 1 where Z is dropped, but for the reverse KL.

        f′ is bounded above: a sum that exceeds its bound has no (f′)⁻¹ unless Z is taken off.

        Raises:
            ValueError: such weights.
        """
        if not self.is_factor and excess(weights) > 0:
            raise ValueError(
                f"the weights {[float(w) for w in weights]} of the policies sum to more than 1, "
                f"and for the {self.name} the formula without its constant has no value then: the "
                "result would leave the reference further than the policies do. Use level 'token' "
                "or 'sequence', which solve for the constant, or a larger beta."
            )

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
        low = -np.asarray(logsumexp(log_base, axis=1, keepdims=True))
        high = np.maximum(low, -np.take_along_axis(log_base, at, 1))
        u = low
        for _ in range(200):
            inverse = self.log_inverse(u, top, combined)
            terms = log_base + inverse
            total = np.asarray(logsumexp(terms, axis=1, keepdims=True))
            low, high = np.where(total <= 0, u, low), np.where(total >= 0, u, high)
            shares = np.exp(terms - total)
            # An atom without mass has no slope either; its derivative may be NaN.
            slopes = np.where(shares > 0, self.log_inverse_slope(u, inverse), 0.0)
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
        return self.log_inverse(level.log_ratio[:, None], level.top[:, None], combined)

    def score(
        self,
        log_laws: Float[Array, "M *rows"],
        log_reference: Float[Array, "*rows"],
        weights: Float[Array, "M"],
    ) -> Float[Array, "*rows"]:
        """log of the formula with Z dropped: not normalised, and for the reverse KL up to Z.

        Raises:
            ValueError: weights that sum to more than 1, but for the reverse KL.
        """
        self.refuse_without_constant(weights)
        return log_reference + self.without_constant(log_ratios(log_laws, log_reference), weights)


def excess(weights: Sequence[float] | Float[Array, "M"]) -> float:
    """Σ w_i − 1; what rounding leaves is 0."""
    over = float(np.sum(weights)) - 1
    return over if abs(over) > _SLACK else 0.0


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
