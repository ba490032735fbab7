"""The optimal law for any two rank procedures, by shooting from the top quantile.

In x = 1 − u, with P = 1 − F and s = log f, stationarity reads

    P′ = e^s,   s′ = −g(1−P)·g_ref(1−x)/β,   P(0) = 0,   s(0) = q,

and a stationary point is a q with P(1) = 1. From this side s only falls, so a wrong q cannot make
the integration explode. W is in general neither convex nor concave in F and may have several
stationary points: a coarse grid over (q, log β) brackets all it can see, and each is polished with
an adaptive integrator.
"""

import dataclasses
import itertools
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.optimize import root

from infalign.quantile.panels import graded_edges, panel_rule, running_integral
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.stationary import StationaryLaw

__all__ = ["ShotLaw", "stationary_laws"]

STARTS = np.sinh(np.linspace(0.0, 4.0, 60)) * (25 / np.sinh(4.0))
"""Values of q = log f(1) that are tried: dense near 0, up to densities of e²⁵."""
BETA_STEPS = np.linspace(1.0, -11.0, 60)
"""Values of log β that are tried, from what small-KL theory says for the KL asked for."""
PLACES = np.concatenate([[0.0], np.geomspace(1e-11, 0.02, 40), np.linspace(0.02, 1.0, 100)[1:]])
"""Steps in x of the coarse integration."""
HIT = 1e-10
"""Largest |P(1) − 1| of a solution."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ShotLaw(StationaryLaw):
    """One integration from u = 1 to u = 0; a stationary law where it hits P(1) = 1."""

    procedure: RankProcedure
    """Decodes the aligned policy."""
    reference_procedure: RankProcedure
    """Decodes the reference."""
    start: float
    """q = log f(1). ≥ 0."""
    at_beta: float
    """β."""

    @property
    def beta(self) -> float:
        return self.at_beta

    @property
    def miss(self) -> float:
        """P(1) − 1."""
        return float(self._path.y[0, -1]) - 1

    @property
    def kl(self) -> float:
        return float(self._path.y[2, -1])

    @property
    def win_rate(self) -> float:
        return 1 - float(self._path.y[3, -1])

    def evaluate(self, u: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        survival, log_density = self._path.sol(np.ravel(x))[:2]
        cdf = np.clip(1 - survival, 0.0, 1.0).reshape(np.shape(x))
        return log_density.reshape(np.shape(x)), np.where(u > 0, cdf, 0.0)

    @cached_property
    def _path(self) -> Any:
        """P, s, ∫ f log f and ∫ G(F)·g_ref along x, with dense output."""
        return solve_ivp(
            self._slopes,
            (0.0, 1.0),
            np.array([0.0, self.start, 0.0, 0.0]),
            method="DOP853",
            first_step=1e-3 * np.exp(-self.start),
            rtol=3e-13,
            atol=1e-14,
            # Dense output is of lower order than the steps: short ones keep it as good.
            max_step=1 / 64,
            dense_output=True,
        )

    def _slopes(self, x: float, state: np.ndarray) -> list[float]:
        survival, log_density = float(state[0]), float(state[1])
        density = float(np.exp(min(log_density, 300.0)))
        # Stages of the last step overshoot P = 1 a little: there g, a polynomial, is continued.
        cdf = max(1.0 - survival, -0.01)
        reference = float(self.reference_procedure.rank_density(1.0 - x))
        force = float(self.procedure.rank_density(cdf))
        cdf = max(cdf, 0.0)
        lost = float(self.procedure.rank_cdf(cdf)) * reference
        return [density, -force * reference / self.at_beta, density * log_density, lost]


def stationary_laws(
    procedure: RankProcedure,
    reference_procedure: RankProcedure,
    beta: float | None = None,
    kl: float | None = None,
) -> list[ShotLaw]:
    """All stationary laws found at the given β, or (where None) at the given KL."""
    spread, rise = _small_kl_transform(procedure, reference_procedure)
    middle = beta if beta is not None else spread / np.sqrt(2 * float(kl or 0.0))
    log_betas = np.log(middle) + (np.zeros(1) if beta is not None else BETA_STEPS)
    hits = _coarse_hits(procedure, reference_procedure, log_betas)
    guesses = [hit[:2] for hit in hits[0]] if beta is not None else _passing(hits, float(kl or 0))
    if not guesses:
        guesses = [np.array([rise / middle, np.log(middle)])]

    def shot(z: np.ndarray) -> ShotLaw:
        q = float(np.clip(z[0], 0.0, 40.0))
        log_beta = float(np.clip(z[-1], log_betas[-1] - 1, log_betas[0] + 1))
        at_beta = beta if beta is not None else float(np.exp(log_beta))
        return ShotLaw(procedure, reference_procedure, q, at_beta)

    def errors(z: np.ndarray) -> list[float]:
        law = shot(z)
        if beta is not None:
            return [law.miss]
        return [law.miss, float(np.log(max(law.kl, 1e-300) / float(kl or 0.0)))]

    used = 1 if beta is not None else 2
    laws = [
        shot(root(errors, guess[:used], options={"xtol": 1e-13, "maxfev": 60}).x)
        for guess in guesses
    ]
    return _distinct([law for law in laws if np.abs(errors_of(law, kl)).max() < HIT])


def errors_of(law: ShotLaw, kl: float | None) -> Float[np.ndarray, "E"]:
    """By how much a shot misses P(1) = 1 and, where asked for, the KL (relative)."""
    return np.array([law.miss, 0.0 if kl is None else law.kl / kl - 1])


def _small_kl_transform(
    procedure: RankProcedure, reference_procedure: RankProcedure
) -> tuple[float, float]:
    """Standard deviation of Φ₀ = ∫g·g_ref, the optimal transform as KL → 0, and Φ₀(1) − mean."""
    edges = graded_edges(inner=64)
    u, weights = panel_rule(edges)
    phi = running_integral(procedure.rank_density(u) * reference_procedure.rank_density(u), edges)
    mean = float(np.sum(weights * phi))
    return float(np.sqrt(np.sum(weights * (phi - mean) ** 2))), float(phi[-1, -1]) - mean


def _coarse_shots(
    procedure: RankProcedure, reference_procedure: RankProcedure, betas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P(1) and ∫ f log f of all (q, β) at once, by Runge–Kutta on fixed steps."""
    q, beta = np.meshgrid(STARTS, betas, indexing="ij")
    state = np.stack([np.zeros_like(q), q, np.zeros_like(q)])

    def slopes(x: float, y: np.ndarray) -> np.ndarray:
        density = np.exp(np.minimum(y[1], 300.0))
        force = procedure.rank_density(np.maximum(1 - y[0], 0.0))
        pull = float(reference_procedure.rank_density(1 - x)) / beta
        return np.stack([density, -force * pull, density * np.maximum(y[1], -1e3)])

    for left, right in itertools.pairwise(PLACES):
        h = float(right - left)
        a = slopes(float(left), state)
        b = slopes(float(left) + h / 2, state + h / 2 * a)
        c = slopes(float(left) + h / 2, state + h / 2 * b)
        d = slopes(float(right), state + h * c)
        state = state + h / 6 * (a + 2 * b + 2 * c + d)
    return state[0], state[2]


def _coarse_hits(
    procedure: RankProcedure, reference_procedure: RankProcedure, log_betas: np.ndarray
) -> list[list[np.ndarray]]:
    """(q, log β, KL) of the hits at each β, interpolated between the shots around them."""
    masses, integrals = _coarse_shots(procedure, reference_procedure, np.exp(log_betas))
    with np.errstate(all="ignore"):
        kls = integrals / masses - np.log(masses)  # KL of the shot's law, scaled to mass 1
    hits = []
    for j, log_beta in enumerate(log_betas):
        miss = masses[:, j] - 1
        around = np.flatnonzero((miss[:-1] > 0) != (miss[1:] > 0))
        share = miss[around] / (miss[around] - miss[around + 1])
        q = STARTS[around] + share * (STARTS[around + 1] - STARTS[around])
        kl = kls[around, j] + share * (kls[around + 1, j] - kls[around, j])
        hits.append([np.array([a, log_beta, b]) for a, b in zip(q, kl, strict=True)])
    return hits


def _passing(hits: list[list[np.ndarray]], kl: float) -> list[np.ndarray]:
    """(q, log β) where the KL passes `kl` between a hit and the nearest one at the next β."""
    found = []
    for here, there in itertools.pairwise(hits):
        pairs = [(a, min(there, key=lambda b, a=a: abs(a[0] - b[0]))) for a in here if there]
        pairs += [(min(here, key=lambda a, b=b: abs(a[0] - b[0])), b) for b in there if here]
        for a, b in pairs:
            if (a[2] - kl) * (b[2] - kl) <= 0 and a[2] != b[2]:
                found.append((a + (kl - a[2]) / (b[2] - a[2]) * (b - a))[:2])
    return list(np.unique(found, axis=0)) if found else []


def _distinct(laws: list[ShotLaw]) -> list[ShotLaw]:
    kept: list[ShotLaw] = []
    for law in laws:
        here = np.array([law.start, np.log(law.beta)])
        if all(np.abs(here - [k.start, np.log(k.beta)]).max() > 1e-6 for k in kept):
            kept.append(law)
    return kept
