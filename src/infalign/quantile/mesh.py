"""Mesh: laws on [0,1] by their values at quadrature points, dense towards both ends.

Quantile procedures and imperfect judges act on a whole law at once, so a law is held as density
values on one fixed set of points. The points are Gauss–Legendre nodes on panels in the logit
y = log(u/(1−u)): a power of u or of 1 − u, at whatever scale, is an exponential in y, so a dozen
panels resolve what would take hundreds in u, and 1 − u keeps all its digits next to 1.

Functions take values with any leading shape; the last axis is the points.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Self, final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre
from scipy import special

from infalign.quantile.panels import (
    NODES,
    ORDER,
    legendre_coefficients,
    panel_rule,
    running_integral,
)
from infalign.quantile.ties import Ties

__all__ = ["COARSE", "FINE", "Mesh"]

NO_TIES = Ties()
COARSE = (-44.0, -28.0, -18.0, -12.0, -8.0, -5.0, -2.5, 0.0, 2.5, 5.0, 8.0, 12.0, 18.0, 28.0, 44.0)
"""Edges in y that a solver starts from; beyond ±44 lie 1e-19 of the reference."""
FINE = tuple(np.linspace(-44.0, 44.0, 89))
"""Edges in y for integrating a given law: every panel a factor of e in u or 1 − u."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Mesh:
    """Quadrature points on [0,1] and the integrals they make.

    Args:
        edges: panel edges in y, increasing.

    Example:
        >>> mesh = Mesh.of(FINE)
        >>> abs(float(mesh.integral(mesh.u**3)) - 1 / 4) < 1e-14
        True
        >>> bool(np.allclose(mesh.below(4 * mesh.u**3), mesh.u**4))
        True
    """

    edges: Float[np.ndarray, "E"]
    """Panel edges in y = log(u/(1−u))."""
    ties: Ties = NO_TIES
    """Quantiles that share one reward; their ends are edges."""

    @classmethod
    def of(cls, edges: Sequence[float], breaks: Sequence[float] = (), ties: Ties = NO_TIES) -> Self:
        """A mesh whose panels end at the given quantiles too, where something kinks or jumps."""
        inner = [b for b in (*breaks, *ties.breaks) if 0 < b < 1]
        at = special.logit(np.asarray(inner, dtype=float))
        return cls(np.unique(np.append(np.asarray(edges, dtype=float), at)), ties)

    def halved(self, panels: Float[np.ndarray, "M"] | None = None) -> "Mesh":
        """With the chosen panels (all where None) cut in two."""
        chosen = slice(None) if panels is None else panels
        middles = ((self.edges[:-1] + self.edges[1:]) / 2)[chosen]
        return Mesh(np.sort(np.append(self.edges, middles)), self.ties)

    @cached_property
    def y(self) -> Float[np.ndarray, "X"]:
        """log(u/(1−u)) of the points."""
        return panel_rule(self.edges)[0].ravel()

    @cached_property
    def u(self) -> Float[np.ndarray, "X"]:
        """The points."""
        return special.expit(self.y)

    @cached_property
    def x(self) -> Float[np.ndarray, "X"]:
        """1 − u, to full relative precision."""
        return special.expit(-self.y)

    @cached_property
    def quantiles(self) -> Float[np.ndarray, "X"]:
        """What a procedure sees of the points: the middle of the tie where the reward is tied."""
        return self.ties.middle(self.u)

    @cached_property
    def weights(self) -> Float[np.ndarray, "X"]:
        """Quadrature weights: ∫ v du ≈ Σ weights·v. They sum to 1."""
        return panel_rule(self.edges)[1].ravel() * self._stretch

    def integral(self, values: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "..."]:
        """∫₀¹ v du."""
        return values @ self.weights

    def below(self, values: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "... X"]:
        """∫₀ᵘ v at each point."""
        return self._running(values, from_above=False)

    def above(self, values: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "... X"]:
        """∫_u¹ v at each point; summed from 1, so that small values keep their digits."""
        return self._running(values, from_above=True)

    def interpolated(
        self, values: Float[np.ndarray, "X"], u: np.ndarray, x: np.ndarray
    ) -> np.ndarray:
        """A function known at the points, anywhere else; u and x = 1 − u of the same shape."""
        with np.errstate(divide="ignore"):
            y = np.clip(np.log(u) - np.log(x), self.edges[0], self.edges[-1])
        panel = np.clip(np.searchsorted(self.edges, y, "right") - 1, 0, len(self.edges) - 2)
        place = 2 * (y - self.edges[panel]) / np.diff(self.edges)[panel] - 1
        table = legendre_coefficients(values.reshape(-1, ORDER))
        return np.asarray(legendre.legval(place, table[:, panel], tensor=False))

    def roughness(self, values: Float[np.ndarray, "X"]) -> Float[np.ndarray, "M"]:
        """Of each panel: the tail of the polynomial through v·du/dy, which is integrated."""
        table = legendre_coefficients((values * self._stretch).reshape(-1, ORDER))
        return np.abs(table[-2:]).max(axis=0) * np.diff(self.edges)

    def smoothed(self, values: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "... X"]:
        """On each panel the polynomial of half the degree that has the same moments.

        A slope taken point by point is right in its moments but rough from point to point.
        """
        basis = legendre.legvander(NODES, ORDER // 2 - 1)
        weights = self.weights.reshape(-1, ORDER)
        weights = weights / weights.max(axis=1, keepdims=True)
        moments = np.einsum("mq,qk,...mq->...mk", weights, basis, self._panels(values))
        masses = np.einsum("mq,qk,ql->mkl", weights, basis, basis)
        fitted = np.linalg.solve(masses, moments[..., None])[..., 0]
        return np.einsum("qk,...mk->...mq", basis, fitted).reshape(values.shape)

    @staticmethod
    def _panels(values: np.ndarray) -> np.ndarray:
        return values.reshape(*values.shape[:-1], -1, ORDER)

    @cached_property
    def _stretch(self) -> np.ndarray:
        """du/dy = u(1−u)."""
        return self.u * self.x

    def _running(self, values: np.ndarray, *, from_above: bool) -> np.ndarray:
        panels = self._panels(values * self._stretch)
        if from_above:  # the rule is symmetric: integrate the mirror image
            mirrored = panels[..., ::-1, ::-1]
            edges = -self.edges[::-1]
            return running_integral(mirrored, edges)[..., ::-1, ::-1].reshape(values.shape)
        return running_integral(panels, self.edges).reshape(values.shape)
