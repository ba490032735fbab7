"""Newton's method for the optimal law on one mesh: log f = ψ[f]/β − log Z, and KL(f) = κ.

The slopes of ψ come from differences, all points at once. A step is shortened until the equations
are better solved than before, weighted by where the law has mass.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import linalg

from infalign.quantile.mesh import Mesh
from infalign.quantile.panels import entropy_excess
from infalign.quantile.solvers.objective import Objective
from infalign.quantile.solvers.stationary import TabulatedLaw

__all__ = ["MeshLaw", "kl_on", "newton"]

STEPS = 40
"""At most, on one mesh, those with kept slopes among them."""
USEFUL = 0.03
"""Slopes are kept for another step while a step reduces the squared errors to this share."""
SHORTEST = 1 / 64
"""Share of a step below which it is given up."""
BUMP = 1e-7
"""Relative change of f for the slopes of ψ."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class MeshLaw(TabulatedLaw):
    """A stationary law by its values on a mesh."""

    mesh: Mesh
    """Where it is known."""
    log_density: Float[np.ndarray, "X"]
    """log f."""
    at_beta: float
    """β."""
    at_kl: float
    """KL, nats."""
    wins: float
    """W."""

    def evaluate(self, u: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cdf = self.mesh.interpolated(self.mesh.below(np.exp(self.log_density)), u, x)
        return self.mesh.interpolated(self.log_density, u, x), np.clip(cdf, 0.0, 1.0)


def kl_on(mesh: Mesh, log_f: Float[np.ndarray, "X"]) -> float:
    """∫ f log f, nats."""
    return float(mesh.integral(entropy_excess(log_f)))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """A guess (log f, log β), and how far it is from solving the equations."""

    objective: Objective
    mesh: Mesh
    kl: float | None
    log_f: np.ndarray
    log_beta: float
    psi: np.ndarray
    renewed: np.ndarray
    """ψ/β − log Z."""
    merit: float
    """Squared errors, weighted by mass."""

    @classmethod
    def of(
        cls,
        objective: Objective,
        mesh: Mesh,
        kl: float | None,
        log_f: np.ndarray,
        log_beta: float | None,
    ) -> "_State":
        with np.errstate(over="ignore", invalid="ignore"):
            psi = objective.first_variation(mesh, np.exp(log_f))
            if log_beta is None:
                log_beta = _matching_log_beta(mesh, log_f, psi)
            renewed = (psi - psi.max()) / np.exp(log_beta)
            renewed = renewed - np.log(mesh.integral(np.exp(renewed)))
            either = np.exp(np.maximum(log_f, renewed)) + 1e-3
            merit = float(mesh.integral(either * np.minimum((log_f - renewed) ** 2, 1e200)))
            if kl is not None:
                merit += (kl_on(mesh, log_f) / kl - 1) ** 2
        return cls(objective, mesh, kl, log_f, log_beta, psi, renewed, merit)

    def moved(self, step: np.ndarray) -> "_State":
        """The guess after a step in (log f, log β)."""
        log_f, log_beta = self.log_f + step[:-1], self.log_beta + float(step[-1])
        return _State.of(self.objective, self.mesh, self.kl, log_f, log_beta)

    def linearised(self) -> tuple[np.ndarray, np.ndarray]:
        """The equations' slopes in (log f, log β), factorised."""
        n, f, beta = len(self.log_f), np.exp(self.log_f), np.exp(self.log_beta)
        bumped = self.objective.first_variation(self.mesh, f + np.diag(BUMP * f))
        slopes = (bumped - self.psi).T / (BUMP * beta)  # ∂(ψ_i/β)/∂log f_j
        tilted = np.exp(self.renewed) * self.mesh.weights
        exponent = (self.psi - self.psi.max()) / beta
        system = np.zeros((n + 1, n + 1))
        system[:n, :n] = np.eye(n) - slopes + tilted @ slopes
        system[:n, n] = exponent - tilted @ exponent
        system[n, n] = 1.0
        if self.kl is not None:
            system[n, :n], system[n, n] = self.mesh.weights * f * self.log_f, 0.0
        return linalg.lu_factor(system, check_finite=False)

    def step_by(self, factorised: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """What would solve the linearised equations; NaN where they are singular."""
        missed = 0.0 if self.kl is None else kl_on(self.mesh, self.log_f) - self.kl
        errors = np.append(self.log_f - self.renewed, missed)
        return linalg.lu_solve(factorised, -errors, check_finite=False)

    def size_of(self, step: np.ndarray) -> float:
        """Largest change; where neither law has density, log f may go where it likes."""
        weight = np.exp(np.minimum(3 + self.log_f + np.maximum(step[:-1], 0.0), 0.0))
        return float(np.abs(step * np.append(weight, 1.0)).max())


def newton(
    objective: Objective,
    mesh: Mesh,
    log_f: Float[np.ndarray, "X"],
    kl: float | None,
    beta: float | None,
    still: float,
) -> MeshLaw | None:
    """The law that Newton's method reaches from a guess; None where it reaches none.

    Args:
        objective: what the law maximises.
        mesh: where it is held.
        log_f: the guess.
        kl: asked for, nats; or
        beta: asked for.
        still: the last step is smaller than this.
    """
    state = _State.of(objective, mesh, kl, log_f, None if beta is None else float(np.log(beta)))
    size, factorised = np.inf, None
    for _ in range(STEPS):
        is_fresh = factorised is None
        if factorised is None:
            factorised = state.linearised()
        step = state.step_by(factorised)
        if not np.isfinite(step).all():
            return None
        old_size, size = size, state.size_of(step)
        is_last = size < still or old_size / 4 < size < 1e-7  # the latter: down to rounding
        share, moved = _shortened(state, step, size, is_last)
        if moved is None and is_fresh:
            return None
        if moved is None or ((share < 1 or moved.merit > USEFUL * state.merit) and not is_last):
            factorised = None
        state = moved or state
        if is_last and share == 1:
            wins = float(objective.win_rate(mesh, np.exp(state.log_f)))
            beta, kl = float(np.exp(state.log_beta)), kl_on(mesh, state.log_f)
            return MeshLaw(mesh, state.log_f, beta, kl, wins)
    return None


def _shortened(
    state: _State, step: np.ndarray, size: float, is_last: bool
) -> tuple[float, _State | None]:
    """The share of the step that makes the equations better solved, and where it leads."""
    share = min(1.0, 2.0 / max(size, 1e-300))
    while share > SHORTEST:
        moved = state.moved(share * step)
        if is_last or moved.merit <= (1 - share / 4) * state.merit or moved.merit < 1e-16:
            return share, moved
        share /= 2
    return share, None


def _matching_log_beta(mesh: Mesh, log_f: np.ndarray, psi: np.ndarray) -> float:
    """log β by least squares of ψ on log f."""
    f = np.exp(log_f) * mesh.weights
    psi, log_f = psi - f @ psi, log_f - f @ log_f
    return float(np.log(max(f @ (psi * log_f), 1e-12) / max(f @ log_f**2, 1e-12)))
