"""Rank procedures: what looks only at the order of N candidates.

Each is a probability vector p over ranks 1 (worst) … N (best). Its rank law
G(v) = Σ_r p_r I_v(r, N−r+1) acts as T(F) = G∘F, and the answer's density is g(F)·f with g = G′.
"""

import dataclasses
from abc import abstractmethod
from typing import final

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from infalign.quantile.mesh import Mesh
from infalign.quantile.panels import Numbers
from infalign.quantile.procedures.procedure import Law, Procedure, refuse_candidates

__all__ = [
    "BestOfN",
    "Identity",
    "RankProcedure",
    "WorstOfN",
    "refuse_n",
]


LARGEST_N = 4096
"""Candidates of one answer at most."""


class RankProcedure(Procedure):
    """A procedure that sees only the order of its candidates: T(F) = G∘F."""

    @property
    @abstractmethod
    def rank_probabilities(self) -> Float[np.ndarray, "N"]:
        """p: probability that the answer has rank 1 (worst) … N (best)."""

    @abstractmethod
    def rank_cdf(self, v: Numbers) -> np.ndarray:
        """G(v) = Σ_r p_r I_v(r, N−r+1), a CDF on [0,1]."""

    @abstractmethod
    def rank_density(self, v: Numbers) -> np.ndarray:
        """g = G′."""

    @abstractmethod
    def rank_density_slope(self, v: Numbers) -> np.ndarray:
        """g′."""

    def rank_survival(self, x: Numbers) -> np.ndarray:
        """1 − G(1 − x), to full relative precision for small x."""
        x = np.asarray(x, dtype=float)
        n, terms = self.candidates, enumerate(self.rank_probabilities, start=1)
        chances = (p * special.betainc(n - r + 1, r, x) for r, p in terms if p > 0)
        return np.asarray(sum(chances, np.zeros_like(x)))

    @final
    def decoded_cdf(self, law: Law, u: Numbers) -> np.ndarray:
        return self.rank_cdf(law.cdf(np.asarray(u, dtype=float)))

    @final
    def decoded_density(self, mesh: Mesh, density: np.ndarray) -> np.ndarray:
        return self.rank_density(mesh.below(density)) * density

    @final
    def first_variation(self, mesh: Mesh, density: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """ψ = h·g(F) + ∫_u¹ h·g′(F)·f, from W = ∫ h·g(F)·f with F = ∫₀ᵘ f."""
        cdf = mesh.below(density)
        later = mesh.above(worth * self.rank_density_slope(cdf) * density)
        return worth * self.rank_density(cdf) + later

    @final
    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        """The candidate whose rank is drawn from p; among equals the earliest sampled ranks lowest.

        Raises:
            ValueError: if the last axis does not have exactly N entries.
        """
        quantiles = refuse_candidates(self, quantiles)
        ranks = rng.choice(self.candidates, size=quantiles.shape[:-1], p=self.rank_probabilities)
        order = np.argsort(quantiles, axis=-1, kind="stable")
        return np.take_along_axis(order, np.asarray(ranks)[..., None], axis=-1)[..., 0]

    @final
    def select_early(
        self,
        quantiles: Float[np.ndarray, "k"],
        rng: np.random.Generator,
        *,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> int | None:
        """Settled where what is still to come changes nothing, be it the smallest or the largest.

        With missing ones at the lower bound the answer is no greater than it will be, with missing
        ones at the upper bound no less; where the two are equal, that is the answer. Equal
        candidates are equally likely.
        """
        quantiles, n = np.asarray(quantiles, dtype=float), self.candidates
        if len(quantiles) >= n:
            return int(self.select(quantiles, rng))
        possible, missing = np.flatnonzero(self.rank_probabilities), n - len(quantiles)
        low, high = (np.sort(np.append(quantiles, np.full(missing, bound))) for bound in bounds)
        if low[possible[0]] != high[possible[-1]]:
            return None
        return int(rng.choice(np.flatnonzero(quantiles == low[possible[0]])))


def refuse_n(n: int, what: str) -> None:
    """Raise ValueError unless n is a number of candidates."""
    if isinstance(n, bool) or not (np.isfinite(n) and n == int(n) and n >= 1):
        raise ValueError(f"n is {n} in {what}; the number of candidates is an integer ≥ 1.")
    if n > LARGEST_N:
        raise ValueError(
            f"n is {n} in {what}; at most {LARGEST_N:,} candidates are computed with. The win "
            "rates of so many hardly differ from those of fewer."
        )


@final
@dataclasses.dataclass(frozen=True)
class Identity(RankProcedure):
    """No procedure: one response is sampled and answered. G(v) = v."""

    @property
    def name(self) -> str:
        return "identity"

    @property
    def candidates(self) -> int:
        return 1

    @property
    def rank_probabilities(self) -> Float[np.ndarray, "N"]:
        return np.ones(1)

    def rank_cdf(self, v: Numbers) -> np.ndarray:
        return np.array(v, dtype=float)

    def rank_density(self, v: Numbers) -> np.ndarray:
        return np.ones_like(np.asarray(v, dtype=float))

    def rank_density_slope(self, v: Numbers) -> np.ndarray:
        return np.zeros_like(np.asarray(v, dtype=float))


@final
@dataclasses.dataclass(frozen=True)
class BestOfN(RankProcedure):
    """Sample N, answer with the best. G(v) = v^N.

    Example:
        >>> float(BestOfN(4).rank_cdf(0.5))
        0.0625
        >>> int(BestOfN(3).select(np.array([0.2, 0.9, 0.4]), np.random.default_rng(0)))
        1
    """

    n: int
    """N ≥ 1."""

    def __post_init__(self) -> None:
        refuse_n(self.n, "best-of-n")

    @property
    def name(self) -> str:
        return f"best-of-{self.n}"

    @property
    def candidates(self) -> int:
        return self.n

    @property
    def rank_probabilities(self) -> Float[np.ndarray, "N"]:
        return np.eye(self.n)[-1]

    def rank_cdf(self, v: Numbers) -> np.ndarray:
        return np.asarray(np.asarray(v, dtype=float) ** self.n)

    def rank_density(self, v: Numbers) -> np.ndarray:
        return np.asarray(self.n * np.asarray(v, dtype=float) ** (self.n - 1))

    def rank_density_slope(self, v: Numbers) -> np.ndarray:
        power = np.asarray(v, dtype=float) ** max(self.n - 2, 0)
        return np.asarray(self.n * (self.n - 1) * power)


@final
@dataclasses.dataclass(frozen=True)
class WorstOfN(RankProcedure):
    """Sample N, suffer the worst: the law an attacker with N tries gets. G(v) = 1 − (1−v)^N.

    Example:
        >>> float(WorstOfN(2).rank_cdf(0.5))
        0.75
    """

    n: int
    """N ≥ 1."""

    def __post_init__(self) -> None:
        refuse_n(self.n, "worst-of-n")

    @property
    def name(self) -> str:
        return f"worst-of-{self.n}"

    @property
    def candidates(self) -> int:
        return self.n

    @property
    def rank_probabilities(self) -> Float[np.ndarray, "N"]:
        return np.eye(self.n)[0]

    def rank_cdf(self, v: Numbers) -> np.ndarray:
        with np.errstate(divide="ignore"):  # log1p(−1) = −∞ is right: G(1) = 1
            return np.asarray(-np.expm1(self.n * np.log1p(-np.asarray(v, dtype=float))))

    def rank_density(self, v: Numbers) -> np.ndarray:
        return np.asarray(self.n * (1 - np.asarray(v, dtype=float)) ** (self.n - 1))

    def rank_density_slope(self, v: Numbers) -> np.ndarray:
        power = (1 - np.asarray(v, dtype=float)) ** max(self.n - 2, 0)
        return np.asarray(-self.n * (self.n - 1) * power)
