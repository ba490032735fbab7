"""What the theory on [0,1] predicts: win rate against KL of one transform, continuous rewards."""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from infalign.quantile.mesh import FINE, Mesh
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.transforms import Transform

__all__ = ["predicted"]

LEAST, POINTS = 1e-3, 120
"""KL at which the table begins, and its number of tilts: interpolated within 1e-6 of W, and within
1e-5 for an optimal Φ far from the β that it was made for."""
MESH = Mesh.of(FINE).halved()


def predicted(
    transform: Transform, procedure: RankProcedure, kls: Float[np.ndarray, "P"]
) -> Float[np.ndarray, "P"]:
    """W of the tilts of Φ at many KLs, by interpolation in √KL; at a KL of 0 it is ½.

    :func:`infalign.frontier` solves for each KL anew, which would take seconds for many prompts.

    Raises:
        ArithmeticError: Φ, made for another KL, has no digits left at the largest of them.

    Example:
        >>> from infalign import BestOfN
        >>> from infalign.quantile.transforms import Log
        >>> predicted(Log(), BestOfN(4), np.array([0.0, np.log(4) - 3 / 4])).round(5).tolist()
        [0.5, 0.8]
    """
    most = 2.0 ** max(0, math.ceil(math.log2(float(kls.max()))))  # few tables for many questions
    try:
        table = _table(transform, procedure, most)
    except ArithmeticError:  # there is no such tilt, but it was not asked for either
        table = _table(transform, procedure, float(kls.max()))
    return table(np.sqrt(kls))


@functools.lru_cache(maxsize=512)
def _table(transform: Transform, procedure: RankProcedure, most: float) -> CubicSpline:
    exponent = transform.tilted_exponent(MESH.u, MESH.x, 1.0)  # Φ, its digits next to 1 kept
    exponent = exponent - exponent.max()

    def density(log_beta: float) -> Float[np.ndarray, "X"]:
        unscaled = np.exp(exponent / math.exp(log_beta))
        return unscaled / MESH.integral(unscaled)

    def kl(log_beta: float) -> float:
        f = density(log_beta)
        return float(MESH.integral(f * np.log(np.maximum(f, 1e-300))))

    near = _where(kl, LEAST)
    betas = np.linspace(near, _where(kl, 1.02 * most), POINTS)
    won = procedure.rank_cdf(MESH.u)
    wins = [MESH.integral(procedure.decoded_density(MESH, density(b)) * won) for b in betas]
    roots = [math.sqrt(kl(b)) for b in betas]
    return CubicSpline([0.0, *roots], [0.5, *wins])


def _where(kl: Callable[[float], float], wanted: float) -> float:
    """log β at which the KL, which falls with β, is the one that is wanted."""
    high = 3.0
    while kl(high) > wanted:
        high += 3.0
    low = high - 1.0
    while kl(low) < wanted:
        low -= 1.0
        if low < -80:
            raise ArithmeticError(f"No tilt of this transform reaches {wanted:.3g} nats in digits.")
    return float(brentq(lambda log_beta: kl(log_beta) - wanted, low, high, xtol=1e-10))
