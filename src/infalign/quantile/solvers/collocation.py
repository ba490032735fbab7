"""The optimal law for any two rank procedures, by Newton's method on the fixed point itself.

F is represented by its values on Gauss–Legendre panels. One round of the optimality condition,
F → Φ = ∫g(F)·g_ref → f = exp(Φ/β)/Z → F_new, is a matrix product away, and so is its derivative.
Newton's method on F_new − F = 0 (with log β unknown too where a KL is asked for) converges where
the plain iteration F ← F_new diverges. Panels that do not resolve the law are halved, and it is
solved again.
"""

import dataclasses
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

from infalign.quantile.panels import graded_edges, legendre_coefficients, panel_rule, running_matrix
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.solvers.stationary import TabulatedLaw

__all__ = ["CollocatedLaw", "Problem", "solved_from"]

ROUNDS = 10
"""Meshes tried."""
STEPS = 40
"""Newton steps on each."""
MOST = 64
"""Panels at most: the matrices are (16·64)²."""


@final
@dataclasses.dataclass(frozen=True)
class Problem:
    """Which law is looked for: the stationary one at this β, or at this KL."""

    procedure: RankProcedure
    reference_procedure: RankProcedure
    beta: float | None
    kl: float | None


@final
@dataclasses.dataclass(frozen=True, eq=False)
class CollocatedLaw(TabulatedLaw):
    """A stationary law by its values on panels."""

    edges: Float[np.ndarray, "E"]
    """Panel edges."""
    cdf: Float[np.ndarray, "M Q"]
    """F at the quadrature points."""
    log_density: Float[np.ndarray, "M Q"]
    """log f there."""
    at_beta: float
    """β."""
    at_kl: float
    """KL, nats."""
    wins: float
    """Win rate after decoding."""

    def evaluate(self, u: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        panel = np.clip(np.searchsorted(self.edges, u, "right") - 1, 0, len(self.edges) - 2)
        width = self.edges[panel + 1] - self.edges[panel]
        place = 2 * (u - self.edges[panel]) / width - 1
        log_f, cdf = (
            np.asarray(legendre.legval(place, table[:, panel], tensor=False))
            for table in self._tables
        )
        return log_f, np.where(u > 0, np.clip(cdf, 0.0, 1.0), 0.0)

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        return legendre_coefficients(self.log_density), legendre_coefficients(self.cdf)


def solved_from(
    problem: Problem, u: np.ndarray, cdf: np.ndarray, beta: float
) -> CollocatedLaw | None:
    """The law that Newton's method reaches from a rough one, refined until resolved; or None.

    Args:
        problem: what is looked for.
        u: increasing places where the rough law is known.
        cdf: its F there.
        beta: its β; where the problem gives one, that is used.
    """
    beta = beta if problem.beta is None else problem.beta
    edges = graded_edges(smallest=2.0**-14, inner=8)
    values = np.interp(panel_rule(edges)[0].ravel(), u, cdf)
    law = None
    for _ in range(ROUNDS):
        law = _newton(problem, edges, values, np.log(beta))
        if law is None:
            return None
        coarse = _unresolved(problem, law)
        if not coarse.any():
            return law
        halves = (edges[:-1] + edges[1:])[coarse] / 2
        if len(edges) + len(halves) > MOST:
            return law  # for the independent check to judge
        edges, beta = np.sort(np.append(edges, halves)), law.beta
        fine = panel_rule(edges)[0].ravel()
        values = law.evaluate(fine, 1 - fine)[1]
    return law


def _unresolved(problem: Problem, law: CollocatedLaw) -> np.ndarray:
    """Panels on which the density's polynomial has a tail above 1e-13 of the mass."""
    density = legendre_coefficients(np.exp(law.log_density))
    tail = np.abs(density[-2:]).max(axis=0) * np.diff(law.edges)
    return tail > 1e-13


def _newton(
    problem: Problem, edges: np.ndarray, cdf: np.ndarray, log_beta: float
) -> CollocatedLaw | None:
    """Newton's method on one mesh."""
    nodes, weights = panel_rule(edges)
    u, w, running = nodes.ravel(), weights.ravel(), running_matrix(edges)
    pull, size = problem.reference_procedure.rank_density(u), np.inf
    for _ in range(STEPS):
        phi = (running - w) @ (problem.procedure.rank_density(cdf) * pull)
        exponent = phi / np.exp(log_beta)
        log_f = exponent - np.log(w @ np.exp(exponent))
        step = _step(problem, running, w, pull, cdf, log_f, exponent, log_beta)
        old_size, size = size, float(np.abs(step).max())
        if not np.isfinite(size):
            return None
        damped = step * min(1.0, 0.3 / max(size, 1e-300))
        cdf = np.clip(cdf + damped[:-1], 0.0, 1.0)
        log_beta += float(damped[-1])
        if size < 1e-12 or old_size / 4 < size < 1e-8:  # the latter: down to rounding
            f = np.exp(log_f)
            lost = problem.procedure.rank_cdf(cdf) * pull
            beta, kl, wins = float(np.exp(log_beta)), float(w * f @ log_f), float(1 - w @ lost)
            shape = nodes.shape
            return CollocatedLaw(edges, cdf.reshape(shape), log_f.reshape(shape), beta, kl, wins)
    return None


def _step(
    problem: Problem,
    running: np.ndarray,
    w: np.ndarray,
    pull: np.ndarray,
    cdf: np.ndarray,
    log_f: np.ndarray,
    exponent: np.ndarray,
    log_beta: float,
) -> np.ndarray:
    """(δF, δlog β) that would solve the linearised equations."""
    f, n = np.exp(log_f), len(w)
    new_cdf = running @ f
    # δlog f = δexponent − mean; its effect on F_new is `spread`, on KL is `tilt`.
    spread = running * f - np.outer(new_cdf, w * f)
    kl = float(w * f @ log_f)
    tilt = w * f * (log_f - kl)
    slope = _slope_of_density(problem.procedure, cdf) * pull / np.exp(log_beta)
    by_cdf = running * slope
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = spread @ by_cdf - np.eye(n)
    system[:n, n] = -spread @ exponent
    system[n, n] = 1.0
    errors = np.append(new_cdf - cdf, 0.0)
    if problem.kl is not None:
        system[n, :n], system[n, n], errors[n] = tilt @ by_cdf, -tilt @ exponent, kl - problem.kl
    try:
        return np.linalg.solve(system, -errors)
    except np.linalg.LinAlgError:
        return np.full(n + 1, np.nan)


def _slope_of_density(procedure: RankProcedure, v: np.ndarray) -> np.ndarray:
    """g′, by a central difference: Newton's method needs no more."""
    h = 1e-6
    v = np.clip(v, h, 1 - h)
    return (procedure.rank_density(v + h) - procedure.rank_density(v - h)) / (2 * h)
