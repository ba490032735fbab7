"""Where stationary laws of any two rank procedures may be: a search by shooting from u = 1.

In x = 1 − u, with P = 1 − F and s = log f, stationarity reads

    P′ = e^s,   s′ = −g(1−P)·g_ref(1−x)/β,   P(0) = 0,   s(0) = q,

and a stationary point is a q with P(1) = 1. From this side s only falls, so a wrong q cannot make
the integration explode. W is in general neither convex nor concave in F and may have several
stationary points: a coarse grid over (q, log β) brackets all it can see, and Newton's method
(:mod:`infalign.quantile.solvers.collocation`) polishes each.
"""

import itertools

import numpy as np
from jaxtyping import Float

from infalign.quantile.panels import graded_edges, panel_rule, running_integral
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.solvers.collocation import CollocatedLaw, Problem, solved_from

__all__ = ["stationary_laws"]

STARTS = np.sinh(np.linspace(0.0, 4.0, 60)) * (25 / np.sinh(4.0))
"""Values of q = log f(1) that are tried: dense near 0, up to densities of e²⁵."""
BETA_STEPS = np.linspace(4.0, -24.0, 120)
"""Values of log β that are tried, from what small-KL theory says for the KL asked for."""
PLACES = np.concatenate([[0.0], np.geomspace(1e-11, 0.02, 40), np.linspace(0.02, 1.0, 100)[1:]])
"""Steps in x of the coarse integration."""


def stationary_laws(
    procedure: RankProcedure,
    reference_procedure: RankProcedure,
    beta: float | None = None,
    kl: float | None = None,
    walks: int = 8,
) -> list[CollocatedLaw]:
    """All stationary laws found at the given β, or (where None) at the given KL.

    Where the search finds none it walks there, from a smaller KL or larger β, in at most `walks`
    steps.
    """
    problem = Problem(procedure, reference_procedure, beta, kl)
    if beta is not None:
        hits = [hit[:2] for hit in _coarse_hits(problem, np.log([beta]))[0]]
    else:
        middle = _small_kl_spread(problem) / np.sqrt(2 * float(kl or 0.0))
        hits = _passing(_coarse_hits(problem, np.log(middle) + BETA_STEPS), float(kl or 0.0))
    laws: list[CollocatedLaw] = []
    for q, log_beta in hits:
        survival, _ = _coarse_shots(problem, np.array([q]), np.exp([log_beta]))
        rough = 1 - survival[::-1, 0, 0] / survival[-1, 0, 0]
        _keep(solved_from(problem, 1 - PLACES[::-1], rough, float(np.exp(log_beta))), laws)
    if not laws and walks > 0:
        u, nearer = 1 - PLACES[::-1], None if kl is None else kl / 1.25
        easier = None if beta is None else beta * 1.5
        for near in stationary_laws(procedure, reference_procedure, easier, nearer, walks - 1):
            _keep(solved_from(problem, u, near.evaluate(u, 1 - u)[1], near.beta), laws)
    return laws


def _keep(law: CollocatedLaw | None, laws: list[CollocatedLaw]) -> None:
    """Add a law that was found, unless it is there already."""
    if law is not None and not any(_same(law, other) for other in laws):
        laws.append(law)


def _same(a: CollocatedLaw, b: CollocatedLaw) -> bool:
    u = np.linspace(0.05, 0.95, 19)
    return bool(np.abs(a.evaluate(u, 1 - u)[1] - b.evaluate(u, 1 - u)[1]).max() < 1e-7)


def _small_kl_spread(problem: Problem) -> float:
    """Standard deviation of ∫g·g_ref, the optimal transform as KL → 0."""
    edges = graded_edges(inner=64)
    u, weights = panel_rule(edges)
    slope = problem.procedure.rank_density(u) * problem.reference_procedure.rank_density(u)
    phi = running_integral(slope, edges)
    return float(np.sqrt(np.sum(weights * (phi - np.sum(weights * phi)) ** 2)))


def _coarse_shots(
    problem: Problem, starts: np.ndarray, betas: np.ndarray
) -> tuple[Float[np.ndarray, "X A B"], Float[np.ndarray, "A B"]]:
    """P at every place, and ∫ f log f, of all (q, β) at once, by Runge–Kutta on fixed steps."""
    q, beta = np.meshgrid(starts, betas, indexing="ij")
    state = np.stack([np.zeros_like(q), q, np.zeros_like(q)])
    path = [state[0]]

    def slopes(x: float, y: np.ndarray) -> np.ndarray:
        density = np.exp(np.minimum(y[1], 300.0))
        force = problem.procedure.rank_density(np.maximum(1 - y[0], 0.0))
        pull = float(problem.reference_procedure.rank_density(1 - x)) / beta
        return np.stack([density, -force * pull, density * np.maximum(y[1], -1e3)])

    for left, right in itertools.pairwise(PLACES.tolist()):
        h = right - left
        a = slopes(left, state)
        b = slopes(left + h / 2, state + h / 2 * a)
        c = slopes(left + h / 2, state + h / 2 * b)
        d = slopes(right, state + h * c)
        state = state + h / 6 * (a + 2 * b + 2 * c + d)
        path.append(state[0])
    return np.stack(path), state[2]


def _coarse_hits(problem: Problem, log_betas: np.ndarray) -> list[list[np.ndarray]]:
    """(q, log β, KL) of the hits at each β, interpolated between the shots around them."""
    paths, integrals = _coarse_shots(problem, STARTS, np.exp(log_betas))
    masses = paths[-1]
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
