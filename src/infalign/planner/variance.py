"""Variance: the exact sampling variance of the all-subsets win rate, one prompt, any sample size.

The estimate Ŵ = Σ_ij w_i·w′_j·1{a_(i) > b_(j)} averages over all size-N subsets of m samples a of
the policy and of M samples b of the reference (:func:`infalign.evaluation.win_rate_samples`). With
Â(x) = S(#{a ≤ x}) and B̂ alike it is Ŵ = 1 − ∫ Â dB̂. At one threshold the counts are binomial, and
the Krawtchouk polynomials decouple two thresholds, so for v = F(x) ≤ w = F(y)

    Cov(Â(x), Â(y)) = Σ_d [G^(d)(v)·v^d/d!]·[G^(d)(w)·(1−w)^d/d!] / C(m, d),    d = 1 … N.

Writing Â = G∘F + α and B̂ = G_ref + b gives three uncorrelated parts, Ŵ − W = −∫α dG_ref
+ ∫b d(G∘F) − ∫α db, each a double integral of products of one variable: a running integral. The
sample sizes enter by the binomials alone (Hoeffding's decomposition), so one set of integrals
serves every m and M.
"""

import dataclasses
from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from infalign.quantile.panels import graded_edges, panel_rule, panel_running, running_integral
from infalign.quantile.procedures import Procedure, RankProcedure
from infalign.quantile.tilting import TiltedPolicy

__all__ = ["ROUNDING", "Components", "components", "difference_components"]

ROUNDING = 1e-14
"""A variance below it may be nothing but rounding."""

LARGEST_N = 256
"""Beyond it the integrals of the highest components fall below floating point."""
LARGEST_MIXED = 32
"""Of a random rank: differences of order N lose up to 2^N of the digits."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Components:
    """Variance of one prompt's Ŵ, or of a difference of two, split by which samples cause it.

    `policy[d−1]` counts with C(N,d)²/C(m,d), `reference[e−1]` with C(N′,e)²/C(M,e), and
    `both[d−1, e−1]` with their product.
    """

    win_rate: float
    """W, or the difference of two."""
    policy: Float[np.ndarray, "N"]
    """From the policy's samples alone."""
    reference: Float[np.ndarray, "M"]
    """From the reference's samples alone."""
    both: Float[np.ndarray, "N M"]
    """From the two together."""

    def variance(self, samples: int, reference_samples: int | None = None) -> float:
        """Exact variance of Ŵ of one prompt.

        Args:
            samples: m of the policy (of each of two policies), ≥ N.
            reference_samples: M of the reference, ≥ N′; m where None.

        Raises:
            ValueError: fewer samples than candidates.

        Example:
            One sample each of two equal laws is a coin:

            >>> from infalign.quantile.procedures import BestOfN
            >>> round(components(None, BestOfN(1)).variance(1), 12)
            0.25
        """
        a = _shares(len(self.policy), samples)
        b = _shares(
            len(self.reference), samples if reference_samples is None else reference_samples
        )
        return float(self.policy @ a + self.reference @ b + a @ self.both @ b)


def components(
    policy: TiltedPolicy | None,
    procedure: Procedure,
    reference_procedure: Procedure | None = None,
) -> Components:
    """Of a policy's win rate; of the reference against itself where the policy is None.

    Args:
        policy: the aligned policy on [0,1], or None.
        procedure: decodes the policy; one that picks by rank.
        reference_procedure: decodes the reference; the same where None.

    Raises:
        ValueError: a procedure that does not pick by rank, or N > 256.
    """
    return _components(policy, _ranks(procedure), _ranks(reference_procedure or procedure))


def difference_components(
    first: TiltedPolicy | None,
    second: TiltedPolicy | None,
    procedure: Procedure,
    reference_procedure: Procedure | None = None,
) -> Components:
    """Of Ŵ(first) − Ŵ(second), both judged against the *same* reference samples of a prompt.

    What the shared samples do to both cancels: only the difference of the laws remains.
    """
    ranks, reference = _ranks(procedure), _ranks(reference_procedure or procedure)
    one, other = (_components(p, ranks, reference) for p in (first, second))
    sides = [_Side.of(p, ranks, reference, _edges(first, second)) for p in (first, second)]
    return Components(
        one.win_rate - other.win_rate,
        one.policy + other.policy,
        sides[0].reference_part(sides[0].answers - sides[1].answers),
        one.both + other.both,
    )


@lru_cache(maxsize=128)
def _components(
    policy: TiltedPolicy | None, procedure: RankProcedure, reference: RankProcedure
) -> Components:
    side = _Side.of(policy, procedure, reference, _edges(policy))
    # 1 − W keeps the digits where almost everything is won.
    lost = float(np.sum(side.weights * side.answers * (1 - reference.rank_cdf(side.x))))
    found = Components(
        1 - lost,
        side.integrated(side.policy, reference.rank_density(side.x)),
        side.reference_part(side.answers),
        side.both_part(),
    )
    if max(procedure.rank_probabilities) == 1 == max(reference.rank_probabilities):
        _refuse_lost_digits(found, lost, procedure, reference)
    return found


def _refuse_lost_digits(
    found: Components, lost: float, procedure: RankProcedure, reference: RankProcedure
) -> None:
    """With N samples for N candidates and a certain rank Ŵ is yes or no: variance W(1 − W)."""
    coin = (1 - lost) * lost
    error = found.variance(procedure.candidates, reference.candidates) - coin
    if not abs(error) < 1e-6 * abs(coin) + ROUNDING:
        raise ArithmeticError(
            f"The variance for {procedure.name} against {reference.name} came out wrong by "
            f"{error:.1e} in a case where it is known; its terms cancel. Use fewer "
            "candidates."
        )


def _ranks(procedure: Procedure) -> RankProcedure:
    if not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"{procedure.name} came; the estimator over all subsets, and so its variance, is for "
            "procedures that pick by the rank among a fixed number of candidates: best-of-n, "
            "worst-of-n, median-of-n, order statistics. Plan the measurement with one of these."
        )
    if procedure.candidates > LARGEST_N:
        raise ValueError(
            f"{procedure.name} draws {procedure.candidates} candidates; the variance is computed "
            f"for up to {LARGEST_N}."
        )
    if max(procedure.rank_probabilities) < 1 and procedure.candidates > LARGEST_MIXED:
        raise ValueError(
            f"{procedure.name} picks a random rank of {procedure.candidates}; the variance is "
            f"computed for up to {LARGEST_MIXED} there, because its terms cancel."
        )
    return procedure


def _shares(n: int, m: int) -> Float[np.ndarray, "n"]:
    """C(n,d)²/C(m,d) for d = 1 … n."""
    if m != int(m) or m < n:
        raise ValueError(
            f"{m} samples per prompt came for {n} candidates; averaging over subsets of {n} needs "
            f"an integer of at least {n}. Take more samples, or a smaller N."
        )
    d = np.arange(1, n + 1)
    return np.exp(2 * _log_binomial(n, d) - _log_binomial(m, d))


def _log_binomial(n: int, d: np.ndarray) -> np.ndarray:
    return special.gammaln(n + 1) - special.gammaln(d + 1) - special.gammaln(n - d + 1)


def _edges(*policies: TiltedPolicy | None) -> Float[np.ndarray, "E"]:
    """Panels that resolve the densities and polynomials of degree 2N."""
    laws = [p.transform.law(p.beta).edges for p in policies if p is not None]
    return np.unique(np.concatenate([graded_edges(smallest=2.0**-30, inner=64), *laws]))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class _Ladder:
    """h_d(v) = E[Δ^d Q(Bin(N−d, v))], d = 0 … N: G and its derivatives, G^(d) = N!/(N−d)!·h_d."""

    v: np.ndarray
    h: np.ndarray

    @classmethod
    def of(cls, procedure: RankProcedure, v: np.ndarray) -> "_Ladder":
        n = procedure.candidates
        steps = np.concatenate([[0.0], np.cumsum(procedure.rank_probabilities)])
        h = np.empty((n + 1, *v.shape))
        for d in range(n + 1):
            used = np.flatnonzero(steps)
            pmf = stats.binom.pmf(used[:, None], n - d, v.ravel())
            h[d] = (steps[used] @ pmf).reshape(v.shape)
            steps = np.diff(steps)
        return cls(v, h)

    @property
    def n(self) -> int:
        return len(self.h) - 1

    def lower(self, d: int) -> np.ndarray:
        """p_d = h_d·v^d: the factor of the smaller threshold."""
        return self.h[d] * self.v**d

    def upper(self, d: int) -> np.ndarray:
        """q_d = h_d·(1−v)^d: the factor of the larger one."""
        return self.h[d] * (1 - self.v) ** d

    def slopes(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """p_d′ and q_d′."""
        v, n = self.v, self.n
        rise = (n - d) * self.h[d + 1] if d < n else np.zeros_like(v)
        down = rise * (1 - v) ** d - d * self.h[d] * (1 - v) ** (d - 1)
        return rise * v**d + d * self.h[d] * v ** (d - 1), down

    def kink(self, d: int) -> np.ndarray:
        """p_d′·q_d − q_d′·p_d: the mass on the diagonal of ∂x∂y of p_d(x∧y)·q_d(x∨y)."""
        return self.h[d] ** 2 * d * (self.v * (1 - self.v)) ** (d - 1)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """Both sides' ladders on one mesh."""

    edges: np.ndarray
    x: np.ndarray
    weights: np.ndarray
    policy: _Ladder
    reference: _Ladder
    answers: np.ndarray
    """Density of the policy's decoded answers, g(F)·f."""

    @classmethod
    def of(
        cls,
        policy: TiltedPolicy | None,
        procedure: RankProcedure,
        reference: RankProcedure,
        edges: np.ndarray,
    ) -> "_Side":
        x, weights = panel_rule(edges)
        cdf, density = (
            (x, np.ones_like(x)) if policy is None else (policy.cdf(x), policy.density(x))
        )
        ladders = _Ladder.of(procedure, cdf), _Ladder.of(reference, x)
        return cls(edges, x, weights, *ladders, procedure.rank_density(cdf) * density)

    def twice(self, below: np.ndarray, above: np.ndarray) -> float:
        """∬ below(x∧y)·above(x∨y) dx dy."""
        return 2 * float(np.sum(self.weights * above * running_integral(below, self.edges)))

    def integrated(self, ladder: _Ladder, measure: np.ndarray) -> Float[np.ndarray, "N"]:
        """∬ p_d(x∧y)·q_d(x∨y) measure(x)·measure(y), d = 1 … N."""
        pairs = ((ladder.lower(d), ladder.upper(d)) for d in range(1, ladder.n + 1))
        return np.array([self.twice(p * measure, q * measure) for p, q in pairs])

    def reference_part(self, answers: np.ndarray) -> Float[np.ndarray, "M"]:
        return self.integrated(self.reference, answers)

    def both_part(self) -> Float[np.ndarray, "N M"]:
        """∬ Cov(Â(x), Â(y)) ∂x∂y Cov(B̂(x), B̂(y)), component by component."""
        a, b = self.policy, self.reference
        ps, qs = (np.array([f(d) for d in range(1, a.n + 1)]) for f in (a.lower, a.upper))
        ups, downs = map(np.array, zip(*(b.slopes(e) for e in range(1, b.n + 1)), strict=True))
        kinks = np.array([b.kink(e) for e in range(1, b.n + 1)])
        running, _ = panel_running(mirrored=False)
        both, below = np.zeros((2, a.n, b.n))
        for m, w in enumerate(self.weights):  # ∬ over x < y: y in panel m, x below it or in it
            p, q, up, down = ps[:, m], qs[:, m], ups[:, m], downs[:, m]
            both += 2 * below * ((q * w) @ down.T) + (p * q * w) @ kinks[:, m].T
            inside = w[:, None] * running * np.diff(self.edges)[m] / 2
            first = (q[:, :, None] * p[:, None, :]).reshape(a.n, -1)
            both += 2 * first @ (down[:, :, None] * up[:, None, :] * inside).reshape(b.n, -1).T
            below += (p * w) @ up.T
        return both
