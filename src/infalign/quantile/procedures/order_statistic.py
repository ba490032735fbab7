"""Order statistics: the answer is the candidate of a certain rank, or of a rank drawn from a law.

Every rank procedure of N candidates is one of these.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special

from infalign.quantile.panels import Numbers
from infalign.quantile.procedures.ranks import RankProcedure, refuse_n

__all__ = ["OrderStatistic", "median_of"]


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

    def realised(self, rng: np.random.Generator) -> "OrderStatistic":
        """Of the one rank that is answered."""
        rank = rng.choice(self.candidates, p=self.rank_probabilities)
        return OrderStatistic(tuple(np.eye(self.candidates)[rank].tolist()))

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

    def rank_density_slope(self, v: Numbers) -> np.ndarray:
        # g = N·Σ p_r B_{r−1} in Bernstein polynomials of degree N − 1; B′ is a difference of two.
        v, n = np.asarray(v, dtype=float), self.candidates
        steps = np.diff(self.rank_probabilities)
        terms = (
            s * special.binom(n - 2, r) * v**r * (1 - v) ** (n - 2 - r)
            for r, s in enumerate(steps)
            if s
        )
        return np.asarray(n * (n - 1) * sum(terms, np.zeros_like(v)))

    def _ranks(self) -> list[tuple[int, float]]:
        """Ranks that occur, from 1, with their probabilities."""
        return [(r, float(p)) for r, p in enumerate(self.rank_probabilities, start=1) if p > 0]


def median_of(n: int) -> OrderStatistic:
    """Sample n, answer with the median; for even n one of the two middle ranks by a fair coin.

    Example:
        >>> median_of(4).probabilities
        (0.0, 0.5, 0.5, 0.0)
    """
    refuse_n(n, "median-of-n")
    p = np.zeros(n)
    p[(n - 1) // 2] += 0.5
    p[n // 2] += 0.5
    return OrderStatistic(tuple(float(x) for x in p), label=f"median-of-{n}")
