"""A reward of two values, pass or fail: the KL alone says what the policy does.

On two ties a law is one number, the chance to pass. The best law of a KL is the one that passes
more, whatever the procedure, as long as passing is worth more; nothing is left to search for. β
follows from the first variation there, whose steps span ten orders of magnitude over the last tenth
of the reachable KL.
"""

import numpy as np
from scipy.optimize import brentq

from infalign.quantile.mesh import COARSE
from infalign.quantile.solvers.newton import MeshLaw, kl_on
from infalign.quantile.solvers.objective import Objective

__all__ = ["two_valued_law"]


def two_valued_law(objective: Objective, kl: float) -> MeshLaw | None:
    """The optimal law of a KL; None where failing is worth as much as passing, or more."""
    mesh, fails = objective.mesh(COARSE), objective.ties.ends[0]
    passes = 1 - fails

    def log_densities(failing: float) -> np.ndarray:
        """log f on fail and pass, when the chance to fail is this share of the reference's."""
        return np.log([failing, (1 - failing * fails) / passes])

    def excess(log_failing: float) -> float:
        low, high = log_densities(np.exp(log_failing))
        failing = np.exp(log_failing) * fails
        return float(failing * low + (1 - failing) * high - kl)

    log_failing = float(brentq(excess, -600.0, -1e-12, xtol=1e-14))  # pyright: ignore
    levels = log_densities(float(np.exp(log_failing)))
    log_f = np.where(mesh.u < fails, levels[0], levels[1])
    psi = objective.first_variation(mesh, np.exp(log_f))
    gain = float(psi[-1] - psi[0])
    if not gain > 0:
        return None
    wins = float(objective.win_rate(mesh, np.exp(log_f)))
    return MeshLaw(mesh, log_f, gain / float(levels[1] - levels[0]), kl_on(mesh, log_f), wins)
