"""Decaying integrals ∫₀ᵘ q·ω(v)/ω(u) dv and ∫_u¹ q·ω(u)/ω(v) dv for an increasing ω.

What a Metropolis chain needs: how much of what lies below (or above) counts, discounted by how much
worse it is. ω may span hundreds of orders of magnitude, so neither ω nor 1/ω is ever formed: the
integrals solve J′ = q − κ·J and K′ = −q + κ·K with κ = (log ω)′ ≥ 0, each stable in the direction
it is followed, by collocation on each panel of a mesh in turn.
"""

import dataclasses
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

from infalign.quantile.mesh import Mesh
from infalign.quantile.panels import NODES, ORDER, legendre_coefficients, panel_running

__all__ = ["Decaying"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Decaying:
    """The two integrals for one ω on one mesh.

    Args:
        mesh: where.
        log_weight: log ω at its points; increasing, smooth on each panel, may jump between them.

    Example:
        >>> from infalign.quantile.mesh import FINE
        >>> mesh = Mesh.of(FINE)
        >>> decaying = Decaying(mesh, 99 * np.log(mesh.u))
        >>> bool(np.allclose(decaying.below(np.ones_like(mesh.u)), mesh.u / 100, rtol=1e-9))
        True
    """

    mesh: Mesh
    """Points."""
    log_weight: Float[np.ndarray, "X"]
    """log ω there."""

    def below(self, values: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "... X"]:
        """∫₀ᵘ q(v)·ω(v)/ω(u) dv at each point."""
        return self._followed(values, *self._upward, backward=False)

    def above(self, values: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "... X"]:
        """∫_u¹ q(v)·ω(u)/ω(v) dv at each point."""
        return self._followed(values, *self._downward, backward=True)

    def _followed(
        self,
        values: np.ndarray,
        solves: Float[np.ndarray, "M Q Q"],
        starts: Float[np.ndarray, "M Q"],
        end: Float[np.ndarray, "Q"],
        passed: Float[np.ndarray, "M"],
        *,
        backward: bool,
    ) -> np.ndarray:
        """Panel by panel: J = solve·(∫q) + start·J(panel's beginning)."""
        stretch = self.mesh.u * self.mesh.x
        panels = (values * stretch).reshape(*values.shape[:-1], -1, ORDER)
        own = np.einsum("...mq,mpq->...mp", panels, solves, optimize=True)
        arriving = np.zeros(values.shape[:-1])
        order = range(panels.shape[-2])
        for m in reversed(order) if backward else order:
            arriving = arriving * passed[m]
            own[..., m, :] += arriving[..., None] * starts[m]
            arriving = own[..., m, :] @ end
        return own.reshape(values.shape)

    @cached_property
    def _upward(self) -> tuple[np.ndarray, ...]:
        return self._operators(np.append(0.0, self._ascent[1]), mirrored=False)

    @cached_property
    def _downward(self) -> tuple[np.ndarray, ...]:
        return self._operators(np.append(self._ascent[1], 0.0), mirrored=True)

    def _operators(self, jumps: np.ndarray, *, mirrored: bool) -> tuple[np.ndarray, ...]:
        """Per panel: q to J, J where it begins to J, J to J where it ends; and the jumps."""
        running, end = panel_running(mirrored=mirrored)
        half = np.diff(self.mesh.edges)[:, None, None] / 2
        inverses = np.linalg.inv(np.eye(ORDER) + half * running * self._ascent[0][:, None, :])
        return inverses @ (half * running), inverses.sum(axis=2), end, np.exp(-jumps)

    @cached_property
    def _ascent(self) -> tuple[np.ndarray, np.ndarray]:
        """κ = d(log ω)/dy at the points (≥ 0), and the jumps of log ω between panels."""
        table = legendre_coefficients(self.log_weight.reshape(-1, ORDER))
        half = np.diff(self.mesh.edges)[:, None] / 2
        slopes = legendre.legval(NODES, legendre.legder(table, axis=0)) / half
        ends, starts = table.sum(axis=0), (-1.0) ** np.arange(ORDER) @ table
        return np.maximum(slopes, 0.0), np.maximum(starts[1:] - ends[:-1], 0.0)
