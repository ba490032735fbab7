"""The optimal law for any procedure and opponent, by Newton's method on its own first variation.

The law that maximises W − β·KL is f ∝ exp(ψ[f]/β), ψ the first variation of W. Held at the points
of a mesh this is a finite system for log f (and log β where a KL is asked for). A walk from small
KL, where ψ is that of the reference, keeps Newton's method near its solution; panels that do not
resolve the law are halved.

W need not be concave, so there may be several stationary laws at one KL. Beside the walk, Newton's
method is started from unlike tilts of that KL, and the law that wins most is kept.
"""

import numpy as np
from scipy import special
from scipy.optimize import brentq

from infalign.quantile.mesh import COARSE, Mesh
from infalign.quantile.solvers.newton import MeshLaw, kl_on, newton
from infalign.quantile.solvers.objective import Objective
from infalign.quantile.solvers.two_values import two_valued_law

__all__ = ["self_residual", "stationary_law"]

ROUGH, EXACT = (1e-3, 1e-5), (1e-12, 1e-11)
"""Tail of the density's polynomials and last Newton step: while searching, and of the result."""
MOST = 40
"""Panels at most: the matrices are (16·40)²."""
START = 0.2
"""KL of the first law of the walk."""
STRIDE = 3.0
"""KL grows by at most this factor from one law of the walk to the next."""


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
    if kl is not None and objective.ties.has_two_values:
        known = two_valued_law(objective, kl)
        if known is not None:
            return known
    laws = [] if near is None else [_solved(objective, near.mesh, near.log_density, kl, beta)]
    reached = None
    if not any(laws):
        walked, reached = _walked(objective, kl, beta)
        laws = [walked]
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
    far = ""
    if reached is not None:
        far = f" The farthest one has KL {reached.kl:.4g} and win rate {reached.wins:.12g}."
    raise ArithmeticError(
        f"No optimal law for {objective.name} at {asked} was found.{far} Ask for a smaller KL, or "
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
    """log f of tilts at the KL that favour everything, the top, shun the bottom, or pass a bar."""
    bars = [special.expit(25 * (mesh.u - bar)) for bar in (0.25, 0.5, 0.75)]
    shapes = (mesh.u, np.log(mesh.u), mesh.u**9, -(mesh.x**9), *bars)
    return [_tilted(mesh, shape, kl)[0] for shape in shapes]


def _tilted(mesh: Mesh, phi: np.ndarray, kl: float) -> tuple[np.ndarray, float]:
    """log f and β of the tilt ∝ exp(φ/β) of a KL."""
    scale = max(float(np.ptp(phi)), 1e-300)
    spread = (phi - phi.max()) / scale

    def log_f(log_beta: float) -> np.ndarray:
        exponent = spread / np.exp(log_beta)
        return exponent - np.log(mesh.integral(np.exp(exponent)))

    def excess(log_beta: float) -> float:
        return float(np.log(max(kl_on(mesh, log_f(log_beta)), 1e-300)) - np.log(kl))

    middle = 0.5 * float(np.log(max(mesh.integral((spread - mesh.integral(spread)) ** 2), 1e-300)))
    low, high = middle - 1, middle + 1
    while excess(low) < 0 and low > middle - 60:
        low -= 2
    while excess(high) > 0 and high < middle + 60:
        high += 2
    if excess(low) < 0:
        return log_f(low), scale * float(np.exp(low))
    log_beta = float(brentq(excess, low, high, xtol=1e-12))  # pyright: ignore[reportArgumentType]
    return log_f(log_beta), scale * float(np.exp(log_beta))


def _walked(
    objective: Objective, kl: float | None, beta: float | None
) -> tuple[MeshLaw | None, MeshLaw | None]:
    """From the reference to the KL (or β) asked for, in steps that Newton's method survives.

    Returns the law, or None, and the farthest one on the way.
    """
    mesh = objective.mesh(COARSE)
    law, stride, first = None, STRIDE, START
    phi = objective.first_variation(mesh, np.ones_like(mesh.u))
    if not np.ptp(phi) > 1e-200:
        raise ValueError(
            f"{objective.name} cannot be improved: no quantile is worth more than another to this "
            "judge (an agreement of 0, a reward that is all one tie, or answers that already are "
            "always the best)."
        )
    for _ in range(60):
        if law is None:
            at_kl, at_beta, is_last = _first_goal(first, kl, beta, mesh, phi)
        else:
            at_kl, at_beta, is_last = _next_goal(law, stride, kl, beta)
        if law is None:
            start = _tilted(mesh, phi, at_kl)[0] if at_kl else _at_beta(mesh, phi, at_beta or 1.0)
        else:
            start = _predicted(law, at_kl, at_beta)
        follower = _solved(objective, law.mesh if law else mesh, start, at_kl, at_beta)
        if follower is not None:
            law, stride = follower, min(STRIDE, 1 + 1.2 * (stride - 1))
            if is_last:
                return law, law
        elif law is None:
            first /= 3
        else:
            stride = 1 + (stride - 1) / 2
        if first < 1e-6 or stride < 1.01:
            break
    return None, law


Goal = tuple[float | None, float | None, bool]
"""(KL, β, whether this is what was asked for) of a law on the walk; one of the two is None."""


def _first_goal(
    first: float, kl: float | None, beta: float | None, mesh: Mesh, phi: np.ndarray
) -> Goal:
    if kl is not None:
        return min(kl, first), None, kl <= first
    wanted, start = float(beta or 0.0), _tilted(mesh, phi, first)[1]
    return None, max(wanted, start), wanted >= start


def _next_goal(law: MeshLaw, stride: float, kl: float | None, beta: float | None) -> Goal:
    if kl is not None:
        return min(kl, law.kl * stride), None, kl <= law.kl * stride
    wanted = float(beta or 0.0)
    return None, max(wanted, law.beta / stride), wanted >= law.beta / stride


def _at_beta(mesh: Mesh, phi: np.ndarray, beta: float) -> np.ndarray:
    exponent = (phi - phi.max()) / beta
    return exponent - np.log(mesh.integral(np.exp(exponent)))


def _predicted(law: MeshLaw, kl: float | None, beta: float | None) -> np.ndarray:
    """A first guess at the next law: the tilt by the last one's transform."""
    phi = law.beta * law.log_density
    return _tilted(law.mesh, phi, kl)[0] if kl else _at_beta(law.mesh, phi, beta or 1.0)


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
    law = newton(objective, mesh, log_f, kl, beta, still)
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
        law = newton(objective, finer, start, kl, beta, still)
    return None
