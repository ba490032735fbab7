"""Procedures: what is done at inference, as an operator on laws over quantiles.

A procedure is defined once with two faces: what it does to samples (`select`, which candidate is
answered) and what it does to a law (`decoded_cdf`, the law of the answer's quantile). The two
faces tell the same story, and a test holds them to it.

Rank procedures look only at the order of N independent candidates. Each is a probability vector p
over ranks 1 (worst) … N (best); its rank law G(v) = Σ_r p_r I_v(r, N−r+1) acts as T(F) = G∘F.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import final

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from infalign.quantile.panels import Numbers

__all__ = [
    "BestOfN",
    "Identity",
    "OrderStatistic",
    "Procedure",
    "RankProcedure",
    "WorstOfN",
    "median_of",
]


class Procedure(ABC):
    """Turns a policy into the law of what it finally answers."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""

    @property
    @abstractmethod
    def candidates(self) -> int:
        """N, the responses sampled for one answer."""

    @abstractmethod
    def decoded_cdf(self, cdf: Numbers) -> np.ndarray:
        """T(F): the answer's CDF from the policy's CDF, both on quantiles."""

    @abstractmethod
    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        """Index of the candidate that is answered, by the candidates' rewards or quantiles."""


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

    @final
    def decoded_cdf(self, cdf: Numbers) -> np.ndarray:
        return self.rank_cdf(cdf)

    @final
    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        """The candidate whose rank is drawn from p; among equals the earliest sampled ranks lowest.

        Raises:
            ValueError: if the last axis does not have exactly N entries.
        """
        quantiles = np.asarray(quantiles)
        if quantiles.ndim < 1 or quantiles.shape[-1] != self.candidates:
            raise ValueError(
                f"{self.name} chooses among {self.candidates} candidates; an array of shape "
                f"{quantiles.shape} came. The last axis holds the candidates of one answer."
            )
        ranks = rng.choice(self.candidates, size=quantiles.shape[:-1], p=self.rank_probabilities)
        order = np.argsort(quantiles, axis=-1, kind="stable")
        return np.take_along_axis(order, np.asarray(ranks)[..., None], axis=-1)[..., 0]


def _refuse_n(n: int, what: str) -> None:
    if n != int(n) or n < 1:
        raise ValueError(f"n is {n} in {what}; the number of candidates is an integer ≥ 1.")


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
        _refuse_n(self.n, "best-of-n")

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
        _refuse_n(self.n, "worst-of-n")

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


@final
@dataclasses.dataclass(frozen=True)
class OrderStatistic(RankProcedure):
    """Sample N = len(p), answer with the one of rank r with probability p_r.

    Args:
        probabilities: p_1 (worst) … p_N (best), ≥ 0, summing to 1.

    Raises:
        ValueError: if they are not a probability vector.

    Example:
        >>> second_best_of_3 = OrderStatistic((0.0, 1.0, 0.0))
        >>> round(float(second_best_of_3.rank_cdf(0.5)), 12)
        0.5
    """

    probabilities: tuple[float, ...]
    """Probability of each rank, worst first."""
    label: str = ""
    """Name in figures; made from the probabilities where empty."""

    def __post_init__(self) -> None:
        p = np.asarray(self.probabilities, dtype=float)
        if p.ndim != 1 or len(p) < 1 or not (p >= 0).all() or not abs(p.sum() - 1) < 1e-9:
            raise ValueError(
                f"Rank probabilities {self.probabilities} came; they must be ≥ 0 and sum to 1, "
                "one for each rank from worst to best."
            )

    @property
    def name(self) -> str:
        return self.label or "ranks(" + ", ".join(f"{p:g}" for p in self.probabilities) + ")"

    @property
    def candidates(self) -> int:
        return len(self.probabilities)

    @property
    def rank_probabilities(self) -> Float[np.ndarray, "N"]:
        p = np.asarray(self.probabilities, dtype=float)
        return p / p.sum()

    def rank_cdf(self, v: Numbers) -> np.ndarray:
        v, n = np.asarray(v, dtype=float), self.candidates
        terms = (p * special.betainc(r, n - r + 1, v) for r, p in self._ranks())
        return np.asarray(sum(terms, np.zeros_like(v)))

    def rank_density(self, v: Numbers) -> np.ndarray:
        v, n = np.asarray(v, dtype=float), self.candidates
        terms = (
            p / special.beta(r, n - r + 1) * v ** (r - 1) * (1 - v) ** (n - r)
            for r, p in self._ranks()
        )
        return np.asarray(sum(terms, np.zeros_like(v)))

    def _ranks(self) -> list[tuple[int, float]]:
        """Ranks that occur, from 1, with their probabilities."""
        return [(r, float(p)) for r, p in enumerate(self.rank_probabilities, start=1) if p > 0]


def median_of(n: int) -> OrderStatistic:
    """Sample n, answer with the median; for even n one of the two middle ranks by a fair coin.

    Example:
        >>> median_of(4).probabilities
        (0.0, 0.5, 0.5, 0.0)
    """
    _refuse_n(n, "median-of-n")
    p = np.zeros(n)
    p[(n - 1) // 2] += 0.5
    p[n // 2] += 0.5
    return OrderStatistic(tuple(float(x) for x in p), label=f"median-of-{n}")
