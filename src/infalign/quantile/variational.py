"""The optimal law for any procedure and opponent, by Newton's method on its own first variation.

The law that maximises W − β·KL is f ∝ exp(ψ[f]/β), ψ the first variation of W. Held at the points
of a mesh this is a finite system for log f (and log β where a KL is asked for). A walk from small
KL, where ψ is that of the reference, keeps Newton's method near its solution; panels that do not
resolve the law are halved.

W need not be concave, so there may be several stationary laws at one KL. Beside the walk, Newton's
method is started from unlike tilts of that KL, and the law that wins most is kept.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from infalign.quantile.mesh import COARSE, Mesh
from infalign.quantile.objective import Objective
from infalign.quantile.panels import entropy_excess
from infalign.quantile.stationary import StationaryLaw

__all__ = ["MeshLaw", "self_residual", "stationary_law"]

STEPS = 20
"""Newton steps on one mesh."""
ROUGH, EXACT = (1e-3, 1e-5), (1e-12, 1e-11)
"""Tail of the density's polynomials and last Newton step: while searching, and of the result."""
MOST = 40
"""Panels at most: the matrices are (16·40)²."""
START = 0.2
"""KL of the first law of the walk."""
STRIDE = 3.0
"""KL grows by at most this factor from one law of the walk to the next."""
BUMP = 1e-7
"""Relative change of f for the slopes of ψ."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class MeshLaw(StationaryLaw):
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

    @property
    def beta(self) -> float:
        return self.at_beta

    @property
    def kl(self) -> float:
        return self.at_kl

    @property
    def win_rate(self) -> float:
        return self.wins

    def evaluate(self, u: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cdf = self.mesh.interpolated(self.mesh.below(np.exp(self.log_density)), u, x)
        return self.mesh.interpolated(self.log_density, u, x), np.clip(cdf, 0.0, 1.0)


def stationary_law(
    objective: Objective,
    *,
    kl: float | None = None,
    beta: float | None = None,
    near: MeshLaw | None = None,
    search: bool = True,
) -> MeshLaw:
    """The law that wins most among the stationary ones found at a KL, or at a β.

    Args:
        objective: what it maximises.
        kl: nats; or
        beta: KL coefficient.
        near: a law to start from instead of walking there, such as that of a neighbouring KL.
        search: start from unlike tilts too, and keep the best.

    Raises:
        ArithmeticError: if Newton's method converges from nowhere.
    """
    laws = [] if near is None else [_solved(objective, near.mesh, near.log_density, kl, beta)]
    if not any(laws):
        laws = [_walked(objective, kl, beta)]
    if search:
        mesh = objective.mesh(COARSE)
        reach = next((law.kl for law in laws if law is not None), 1.0)
        starts = _unlike_tilts(mesh, reach if kl is None else kl)
        laws += [_solved(objective, mesh, start, kl, beta) for start in starts]
    found = sorted((law for law in laws if law), key=lambda law: (beta or 0.0) * law.kl - law.wins)
    for law in found:
        exact = _solved(objective, law.mesh, law.log_density, kl, beta, EXACT)
        if exact is not None:
            return exact
    asked = f"KL = {kl:.6g} nats" if kl is not None else f"β = {beta:.6g}"
    raise ArithmeticError(
        f"No optimal law for {objective.name} at {asked} was found. Ask for a smaller KL, or "
        "use an exponential transform."
    )


def self_residual(objective: Objective, law: MeshLaw) -> float:
    """sup |F − F_new|, F_new the CDF of exp(ψ[f]/β)/Z on panels twice as fine."""
    mesh = law.mesh.halved()
    log_f, cdf = law.evaluate(mesh.u, mesh.x)
    density = np.exp(log_f)
    psi = objective.first_variation(mesh, density / mesh.integral(density)) / law.beta
    weight = np.exp(psi - psi.max())
    renewed = mesh.below(weight) / mesh.integral(weight)
    return float(np.max(np.abs(renewed - cdf)))


def _unlike_tilts(mesh: Mesh, kl: float) -> list[np.ndarray]:
    """log f of tilts at the KL that favour everything, the top, and shun the bottom."""
    shapes = (mesh.u, np.log(mesh.u), mesh.u**9, -(mesh.x**9))
    return [_tilted(mesh, shape, kl)[0] for shape in shapes]


def _tilted(mesh: Mesh, phi: np.ndarray, kl: float) -> tuple[np.ndarray, float]:
    """log f and β of the tilt ∝ exp(φ/β) of a KL."""
    spread = phi - phi.max()

    def log_f(log_beta: float) -> np.ndarray:
        exponent = spread / np.exp(log_beta)
        return exponent - np.log(mesh.integral(np.exp(exponent)))

    def excess(log_beta: float) -> float:
        return float(np.log(max(_kl(mesh, log_f(log_beta)), 1e-300)) - np.log(kl))

    variance = float(mesh.integral(phi**2) - mesh.integral(phi) ** 2)
    middle = 0.5 * float(np.log(max(variance, 1e-300)))
    low, high = middle - 1, middle + 1
    while excess(low) < 0 and low > middle - 60:
        low -= 2
    while excess(high) > 0 and high < middle + 60:
        high += 2
    if excess(low) < 0:
        return log_f(low), float(np.exp(low))
    log_beta = float(brentq(excess, low, high, xtol=1e-12))  # pyright: ignore[reportArgumentType]
    return log_f(log_beta), float(np.exp(log_beta))


def _kl(mesh: Mesh, log_f: np.ndarray) -> float:
    return float(mesh.integral(entropy_excess(log_f)))


def _walked(objective: Objective, kl: float | None, beta: float | None) -> MeshLaw | None:
    """From the reference to the KL (or β) asked for, in steps that Newton's method survives."""
    mesh = objective.mesh(COARSE)
    law, stride, reached = None, STRIDE, 0.0
    phi = objective.first_variation(mesh, np.ones_like(mesh.u))
    if not np.ptp(phi) > 1e-13:
        raise ValueError(
            f"{objective.name} cannot be improved: no quantile is worth more than another to this "
            "judge (an agreement of 0, or a reward that is all one tie)."
        )
    for _ in range(60):
        goal = _next_goal(law, reached, stride, kl, beta, mesh, phi)
        at_kl, at_beta, is_last = goal
        if law is None:
            start = _tilted(mesh, phi, at_kl)[0] if at_kl else _at_beta(mesh, phi, at_beta or 1.0)
        else:
            start = _predicted(objective, law, at_kl, at_beta)
        follower = _solved(objective, law.mesh if law else mesh, start, at_kl, at_beta)
        if follower is None:
            stride = 1 + (stride - 1) / 2
            if stride < 1.02:
                return None
            continue
        law, reached = follower, follower.kl
        if is_last:
            return law
        stride = min(STRIDE, 1 + 1.5 * (stride - 1))
    return None


def _next_goal(
    law: MeshLaw | None,
    reached: float,
    stride: float,
    kl: float | None,
    beta: float | None,
    mesh: Mesh,
    phi: np.ndarray,
) -> tuple[float | None, float | None, bool]:
    """(KL, β, whether this is what was asked for) of the walk's next law; one of the two None."""
    if kl is not None:
        goal = min(kl, START) if law is None else min(kl, reached * stride)
        return goal, None, goal == kl
    wanted = float(beta or 0.0)
    start = _tilted(mesh, phi, START)[1]
    goal = max(wanted, start) if law is None else max(wanted, law.beta / stride)
    return None, goal, goal == wanted


def _at_beta(mesh: Mesh, phi: np.ndarray, beta: float) -> np.ndarray:
    exponent = (phi - phi.max()) / beta
    return exponent - np.log(mesh.integral(np.exp(exponent)))


def _predicted(
    objective: Objective, law: MeshLaw, kl: float | None, beta: float | None
) -> np.ndarray:
    """A first guess at the next law: the tilt by the last one's transform."""
    phi = law.beta * law.log_density
    if kl is not None:
        return _tilted(law.mesh, phi, kl)[0]
    return _at_beta(law.mesh, phi, beta or 1.0)


def _solved(
    objective: Objective,
    mesh: Mesh,
    log_f: np.ndarray,
    kl: float | None,
    beta: float | None,
    tolerances: tuple[float, float] = ROUGH,
) -> MeshLaw | None:
    """Newton's method from a guess, on finer meshes until the law is resolved; or None."""
    smooth, still = tolerances
    law = _newton(objective, mesh, log_f, kl, beta, still)
    while law is not None:
        decoded = [
            term.procedure.decoded_density(law.mesh, np.exp(law.log_density))
            for term in objective.terms
        ]
        rough = np.max([law.mesh.roughness(v) for v in (np.exp(law.log_density), *decoded)], 0)
        coarse = rough > smooth
        if not coarse.any() or len(rough) + coarse.sum() > MOST:
            return law  # in the latter case for the residual to judge
        finer = law.mesh.halved(coarse)
        start = law.mesh.interpolated(law.log_density, finer.u, finer.x)
        law = _newton(objective, finer, start, kl, beta, still)
    return None


def _newton(
    objective: Objective,
    mesh: Mesh,
    log_f: np.ndarray,
    kl: float | None,
    beta: float | None,
    still: float,
) -> MeshLaw | None:
    """Newton's method on one mesh: log f = ψ[f]/β − log Z, and KL(f) = kl."""
    psi = objective.first_variation(mesh, np.exp(log_f))
    log_beta = np.log(beta) if beta is not None else _matching_log_beta(mesh, log_f, psi)
    size = np.inf
    for _ in range(STEPS):
        errors, system = _system(objective, mesh, log_f, psi, log_beta, kl)
        try:
            step = np.linalg.solve(system, -errors)
        except np.linalg.LinAlgError:
            return None
        # Where neither the old nor the new law has density, log f may go where it likes.
        weight = np.exp(np.minimum(3 + log_f + np.maximum(step[:-1], 0.0), 0.0))
        old_size, size = size, float(np.abs(step * np.append(weight, 1.0)).max())
        if not np.isfinite(size) or size > 1e3:
            return None
        step *= min(1.0, 2.0 / max(size, 1e-300))
        log_f, log_beta = log_f + step[:-1], log_beta + float(step[-1])
        psi = objective.first_variation(mesh, np.exp(log_f))
        if size < still or old_size / 4 < size < 1e-7:  # the latter: down to rounding
            wins = float(objective.win_rate(mesh, np.exp(log_f)))
            return MeshLaw(mesh, log_f, float(np.exp(log_beta)), _kl(mesh, log_f), wins)
    return None


def _matching_log_beta(mesh: Mesh, log_f: np.ndarray, psi: np.ndarray) -> float:
    """log β by least squares of ψ on log f."""
    f = np.exp(log_f) * mesh.weights
    psi, log_f = psi - f @ psi, log_f - f @ log_f
    return float(np.log(max(f @ (psi * log_f), 1e-12) / max(f @ log_f**2, 1e-12)))


def _system(
    objective: Objective,
    mesh: Mesh,
    log_f: np.ndarray,
    psi: np.ndarray,
    log_beta: float,
    kl: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the equations and their slopes in (log f, log β)."""
    n, f, beta = len(log_f), np.exp(log_f), np.exp(log_beta)
    exponent = psi / beta
    new = exponent - exponent.max()
    tilted = np.exp(new) * mesh.weights
    new -= np.log(tilted.sum())
    tilted /= tilted.sum()
    bumped = objective.first_variation(mesh, f + np.diag(BUMP * f))
    slopes = (bumped - psi).T / (BUMP * beta)  # ∂(ψ_i/β)/∂log f_j
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = np.eye(n) - slopes + tilted @ slopes
    system[:n, n] = exponent - tilted @ exponent
    system[n, n] = 1.0
    errors = np.append(log_f - new, 0.0)
    if kl is not None:
        system[n, :n], system[n, n] = mesh.weights * f * log_f, 0.0
        errors[n] = _kl(mesh, log_f) - kl
    return errors, system
