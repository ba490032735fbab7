"""Differentiating a decoded law by the policy's masses, however much the decoding tells.

A procedure on finitely many responses is a function of a probability vector. Its derivative is
taken from the function itself if it brings one, by a complex step if it is made of arithmetic, and
by forward differences otherwise, which never leave the simplex.
"""

import warnings
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

__all__ = ["Differentiable", "Gradient", "by_complex_step", "by_differences", "gradient_of"]

Decode = Callable[[np.ndarray], np.ndarray]
Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(masses, h) → ∇ Σ T(π)·h by the masses, up to a constant."""
STEP = 1e-4
STENCIL = np.array([-25 / 12, 4.0, -3.0, 4 / 3, -1 / 4])
"""Of fourth order, from the point and four ahead of it."""


@runtime_checkable
class Differentiable(Protocol):
    """A decoding that knows its derivative."""

    def pullback(
        self, masses: Float[np.ndarray, "C"], worth: Float[np.ndarray, "C"]
    ) -> Float[np.ndarray, "C"]:
        """∇ Σ T(π)·h, up to a constant."""
        ...


def gradient_of(decode: Decode, masses: Float[np.ndarray, "C"]) -> Gradient:
    """The best derivative that a decoding allows; tried out at the given masses."""
    if isinstance(decode, Differentiable):
        return decode.pullback
    if _takes_complex(decode, masses):
        return lambda at, worth: by_complex_step(decode, at, worth)
    return lambda at, worth: by_differences(decode, at, worth)


def by_complex_step(
    decode: Decode, masses: Float[np.ndarray, "C"], worth: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "C"]:
    """Im W(π + ih·e_j)/h: no difference is taken, so no digits are lost.

    Example:
        >>> by_complex_step(lambda m: m**2, np.array([0.25, 0.75]), np.array([0.0, 1.0])).tolist()
        [-1.125, 0.375]
    """
    h = 1e-30
    moved = masses + 1j * h * np.eye(len(masses))
    moved = moved / moved.sum(axis=1, keepdims=True)
    return np.imag(decode(moved) @ worth) / h


def by_differences(
    decode: Decode, masses: Float[np.ndarray, "C"], worth: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "C"]:
    """Four steps ahead towards each response, the sum kept at 1: right to about 1e-11.

    Example:
        >>> at, worth = np.array([0.25, 0.75]), np.array([0.0, 1.0])
        >>> by_differences(lambda m: m**2, at, worth).round(9).tolist()
        [-1.125, 0.375]
    """
    steps = STEP * np.arange(len(STENCIL))[:, None, None] * np.eye(len(masses))
    moved = masses + steps
    moved = moved / moved.sum(axis=-1, keepdims=True)
    return STENCIL @ (np.asarray(decode(moved)) @ worth) / STEP


def _takes_complex(decode: Decode, masses: np.ndarray) -> bool:
    """Whether the complex step works, and agrees with differences."""
    worth = np.cos(np.arange(len(masses)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a cast to real would throw the derivative away
            exact = by_complex_step(decode, masses, worth)
    except (TypeError, ValueError, Warning):
        return False
    rough = by_differences(decode, masses, worth)
    return bool(np.allclose(exact, rough, rtol=1e-5, atol=1e-7))
