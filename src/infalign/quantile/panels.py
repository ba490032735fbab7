"""Integrals on [0,1] of densities that may be steep: Gauss–Legendre on adaptive panels.

A tilted density exp(Φ(u)/β) can be a spike at u = 1, a power at u = 0 or a cliff in between, so a
fixed grid is silently wrong somewhere. The interval is cut geometrically towards both ends, then a
panel is halved until the polynomial through its 16 points has a negligible tail.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

__all__ = [
    "NODES",
    "ORDER",
    "Numbers",
    "RunningIntegral",
    "TiltedLaw",
    "entropy_excess",
    "graded_edges",
    "legendre_coefficients",
    "panel_rule",
    "panel_running",
    "refined_edges",
    "running_integral",
    "running_matrix",
]

ORDER = 16
"""Points per panel: exact for polynomials of degree 31."""

CROWD = 256
"""More panels than that are never split at once for a smooth integrand."""

Function = Callable[[np.ndarray], np.ndarray]
Numbers: TypeAlias = np.ndarray | np.number | float | int | Sequence[Any]
"""What functions on [0,1] take: one number or an array of any shape."""


def _running_integral_matrix(nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Row i integrates the interpolating polynomial from −1 to node i, from values at the nodes."""
    basis = legendre.legvander(nodes, len(nodes))
    running = np.empty((len(nodes), len(nodes)))
    running[:, 0] = nodes + 1
    for degree in range(1, len(nodes)):
        running[:, degree] = (basis[:, degree + 1] - basis[:, degree - 1]) / (2 * degree + 1)
    to_coefficients = (np.arange(len(nodes)) + 0.5)[:, None] * (basis[:, :-1] * weights[:, None]).T
    return running @ to_coefficients


NODES, _WEIGHTS = legendre.leggauss(ORDER)
_RUNNING = _running_integral_matrix(NODES, _WEIGHTS)
_TO_LEGENDRE = np.linalg.inv(legendre.legvander(NODES, ORDER - 1))
"""Values at the nodes → Legendre coefficients."""


def graded_edges(smallest: float = 2.0**-46, inner: int = 16) -> Float[np.ndarray, "E"]:
    """Panel edges on [0,1]: `inner` equal panels, the outermost quartered down to `smallest`.

    Example:
        >>> graded_edges(smallest=1 / 64, inner=4).tolist()
        [0.0, 0.015625, 0.0625, 0.25, 0.5, 0.75, 0.9375, 0.984375, 1.0]
    """
    quarterings = np.arange(int(np.ceil(-np.log2(smallest * inner) / 2)), 0, -1)
    tail = 0.25**quarterings / inner
    return np.concatenate([[0.0], tail, np.arange(1, inner) / inner, 1 - tail[::-1], [1.0]])


def panel_rule(
    edges: Float[np.ndarray, "E"],
) -> tuple[Float[np.ndarray, "M Q"], Float[np.ndarray, "M Q"]]:
    """Nodes and weights of the 16-point rule on each of the M panels between the edges.

    Example:
        >>> nodes, weights = panel_rule(np.array([0.0, 0.5, 1.0]))
        >>> round(float(np.sum(weights * nodes**3)), 15)
        0.25
    """
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (NODES + 1), half * _WEIGHTS


def running_integral(
    values: Float[np.ndarray, "... M Q"], edges: Float[np.ndarray, "E"]
) -> Float[np.ndarray, "... M Q"]:
    """∫ from the first edge to each node, of functions given at the nodes of `panel_rule`.

    Example:
        >>> nodes, _ = panel_rule(np.array([0.0, 0.5, 1.0]))
        >>> bool(np.allclose(running_integral(3 * nodes**2, np.array([0.0, 0.5, 1.0])), nodes**3))
        True
    """
    half = np.diff(edges)[:, None] / 2
    whole = (values * half) @ _WEIGHTS
    below = np.concatenate([np.zeros((*whole.shape[:-1], 1)), np.cumsum(whole, -1)[..., :-1]], -1)
    return below[..., None] + half * (values @ _RUNNING.T)


def panel_running(*, mirrored: bool) -> tuple[Float[np.ndarray, "Q Q"], Float[np.ndarray, "Q"]]:
    """On [−1,1]: values at the nodes → integrals from −1 to the nodes, and → the value at 1.

    Mirrored: integrals from the nodes to 1, and the value at −1.
    """
    if mirrored:
        return _RUNNING[::-1, ::-1], (-1.0) ** np.arange(ORDER) @ _TO_LEGENDRE
    return _RUNNING, _TO_LEGENDRE.sum(axis=0)


def running_matrix(edges: Float[np.ndarray, "E"]) -> Float[np.ndarray, "X X"]:
    """`running_integral` as a matrix on the flattened nodes."""
    half, panels = np.diff(edges) / 2, len(edges) - 1
    whole = np.kron(np.tril(np.ones((panels, panels)), -1), np.ones((ORDER, 1)) * _WEIGHTS)
    return (whole + np.kron(np.eye(panels), _RUNNING)) * np.repeat(half, ORDER)


def legendre_coefficients(values: Float[np.ndarray, "M Q"]) -> Float[np.ndarray, "Q M"]:
    """Of the polynomial through the values at each panel's nodes."""
    return _TO_LEGENDRE @ values.T


def refined_edges(
    integrand: Function, edges: Float[np.ndarray, "E"], tolerance: float = 1e-14
) -> Float[np.ndarray, "R"]:
    """Halve panels until each one's interpolating polynomial has a negligible tail.

    Negligible: the last two Legendre coefficients, times the panel's width, are below tolerance ×
    the whole integral (or below what rounding of the points does to the panel's values). Then
    running integrals are as good as whole ones.

    Raises:
        ArithmeticError: if the integrand is too rough to be integrated to 1e-7.
    """
    fresh, settled, last, total = np.stack([edges[:-1], edges[1:]], axis=1), [], edges[-1], 0.0
    while len(fresh):
        width = np.diff(fresh, axis=1)
        values = integrand(fresh[:, :1] + width / 2 * (NODES + 1))
        total = max(total, float(np.sum(values * width / 2 * _WEIGHTS)))
        tail = np.abs(values @ _TO_LEGENDRE[-2:].T).max(axis=1) * width[:, 0]
        noise = 1e-14 * fresh[:, 1] * np.abs(values).max(axis=1)
        # Hundreds of panels splitting at once are resolving rounding noise: settle for its level.
        while np.sum(split := tail > np.maximum(tolerance * total, noise)) > CROWD:
            tolerance *= 2
        settled.append(fresh[~split, 0])
        middle = fresh[split].mean(axis=1)
        left, right = fresh[split, 0], fresh[split, 1]
        fresh = np.stack([np.append(left, middle), np.append(middle, right)], axis=1)
    if tolerance > 1e-7:
        raise ArithmeticError(
            f"A density could not be integrated: it is rough at a level of {tolerance:.1e} of its "
            "mass on every panel. A transform must be piecewise smooth, and β not minute."
        )
    return np.append(np.sort(np.concatenate(settled)), last)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TiltedLaw:
    """The law with density exp(h(u)) / ∫exp(h) on [0,1], integrated once, on adaptive panels.

    `h` is Φ/β. It may be −∞ at u = 0 but nowhere +∞, and takes its maximum at u = 1 (Φ
    increases), which keeps the exponential from overflowing.

    Example:
        >>> law = TiltedLaw.of(lambda u: 3 * np.log(u))
        >>> round(float(np.exp(-law.log_mass)), 12)
        4.0
        >>> law.cdf(np.array([0.5])).round(12).tolist()
        [0.0625]
    """

    exponent: Function
    """h, up to the constant `top`."""
    top: float
    """h(1), taken out of every exponential."""
    edges: Float[np.ndarray, "E"]
    """Panel edges, from 0 to 1."""
    nodes: Float[np.ndarray, "M Q"]
    """Quadrature points."""
    weights: Float[np.ndarray, "M Q"]
    """Their weights: sum to 1."""
    mass: float
    """∫ exp(h − top)."""

    @classmethod
    def of(cls, exponent: Function, breaks: Sequence[float] = ()) -> "TiltedLaw":
        """Integrate exp(exponent), which may jump at the breaks."""
        top = float(exponent(np.ones(1))[0])
        if not np.isfinite(top):
            raise ValueError(
                f"Φ(1)/β is {top}; it must be finite, because the tilted density is scaled by its "
                "value at u = 1. Use a transform that is bounded above and a β that is not tiny."
            )
        edges = np.unique(np.append(graded_edges(), breaks))
        edges = refined_edges(lambda u: np.exp(exponent(u) - top), edges)
        nodes, weights = panel_rule(edges)
        mass = float(np.sum(np.exp(exponent(nodes) - top) * weights))
        return cls(exponent, top, edges, nodes, weights, mass)

    @property
    def log_mass(self) -> float:
        """log ∫ exp(h): the log-partition. Nats."""
        return float(np.log(self.mass) + self.top)

    def density(self, u: np.ndarray) -> np.ndarray:
        """f(u)."""
        return np.exp(self.exponent(u) - self.top) / self.mass

    @property
    def kl(self) -> float:
        """∫ f log f. Nats.

        The integrand is taken as f·log f − f + 1 ≥ 0, whose integral is the same and does not
        cancel when the law is close to uniform.
        """
        return float(
            np.sum(self.weights * entropy_excess(self.exponent(self.nodes) - self.log_mass))
        )

    def cdf_at_nodes(self) -> Float[np.ndarray, "M Q"]:
        """F at the quadrature points, without evaluating the transform anew."""
        return np.clip(running_integral(self.density(self.nodes), self.edges), 0.0, 1.0)

    def cdf(self, u: np.ndarray) -> np.ndarray:
        """F(u) = ∫₀ᵘ f: whole panels, then the 16-point rule on the part of one."""
        u = np.asarray(u, dtype=float)
        sums = (self.density(self.nodes) * self.weights).sum(axis=1)
        below = np.concatenate([[0.0], np.cumsum(sums)])
        panel = np.clip(np.searchsorted(self.edges, u, side="right") - 1, 0, len(sums) - 1)
        start = self.edges[panel]
        half = (u - start)[..., None] / 2
        part = (self.density(start[..., None] + half * (NODES + 1)) * half * _WEIGHTS).sum(axis=-1)
        return np.asarray(np.clip(below[panel] + part, 0.0, 1.0))


def entropy_excess(t: np.ndarray) -> np.ndarray:
    """t·e^t − e^t + 1 ≥ 0, to full relative precision also near t = 0; 1 at t = −∞.

    Example:
        >>> entropy_excess(np.array([-np.inf, 0.0, 1e-9, 1.0])).tolist()
        [1.0, 0.0, 5.000000003333334e-19, 1.0]
    """
    s = np.where(np.abs(t) < 1e-2, t, 0.0)
    series = s**2 * (1 / 2 + s * (1 / 3 + s * (1 / 8 + s * (1 / 30 + s * (1 / 144 + s / 840)))))
    direct = np.exp(t) * (np.where(np.isneginf(t), 0.0, t) - 1) + 1
    return np.where(np.abs(t) < 1e-2, series, direct)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class RunningIntegral:
    """A(u) = ∫₀ᵘ φ for a bounded φ, tabulated once as polynomials on adaptive panels.

    Example:
        >>> integral = RunningIntegral.of(lambda u: 4 * u**3)
        >>> integral(np.array([0.0, 0.5, 1.0])).round(14).tolist()
        [0.0, 0.0625, 1.0]
    """

    edges: Float[np.ndarray, "E"]
    """Panel edges, from 0 to 1."""
    coefficients: Float[np.ndarray, "C M"]
    """Legendre coefficients of A on each panel."""

    @classmethod
    def of(cls, function: Function, breaks: Sequence[float] = ()) -> "RunningIntegral":
        """Tabulate the integral of a function, which may jump at the breaks."""
        edges = np.unique(np.append(graded_edges(), breaks))
        edges = refined_edges(lambda u: np.abs(function(u)), edges)
        nodes, _ = panel_rule(edges)
        half = np.diff(edges) / 2
        local = legendre.legint(legendre_coefficients(function(nodes)), lbnd=-1) * half
        ends = np.cumsum(local.sum(axis=0))  # every Legendre polynomial is 1 at the right end
        local[0] += np.append(0.0, ends[:-1])
        return cls(edges, local)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        panel = np.clip(np.searchsorted(self.edges, u, "right") - 1, 0, len(self.edges) - 2)
        width = self.edges[panel + 1] - self.edges[panel]
        x = 2 * (u - self.edges[panel]) / width - 1
        return np.asarray(legendre.legval(x, self.coefficients[:, panel], tensor=False))
