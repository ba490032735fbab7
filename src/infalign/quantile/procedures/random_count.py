"""Random number of candidates: a rank procedure whose N is drawn anew for each answer.

A budget shared by a fluctuating number of requests, or a stopping rule that does not look at
rewards. With probabilities q_n of n candidates, G = Σ q_n G_n. Picking by rank among the first n of
N candidates *is* a rank procedure on all N (rank r of N is the best of n random ones with
probability C(r−1, n−1)/C(N, n)), so every law and estimator for rank procedures applies.
"""

import dataclasses
from functools import cached_property, lru_cache
from typing import Literal, final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import polynomial
from scipy import stats

from infalign.quantile.panels import Numbers
from infalign.quantile.procedures.order_statistic import median_of
from infalign.quantile.procedures.procedure import Procedure
from infalign.quantile.procedures.ranks import BestOfN, RankProcedure, WorstOfN
from infalign.quantile.subsets import subset_weights

__all__ = ["RandomCount", "best_of_geometric", "best_of_poisson"]

_RULES = {"best": BestOfN, "worst": WorstOfN, "median": median_of}
NEGLIGIBLE = 1e-12
"""Probability of larger counts at which a count's law is cut off."""
MOST = 1024
"""Largest count."""


@final
@dataclasses.dataclass(frozen=True)
class RandomCount(RankProcedure):
    """Sample n = 1, 2, … candidates with given probabilities, answer by one rule of rank.

    Args:
        probabilities: q_1, q_2, … of one, two, … candidates; ≥ 0, summing to 1.
        rule: "best", "worst" or "median" of them.

    Raises:
        ValueError: if they are not a probability vector, or the rule is unknown.

    Example:
        >>> one_or_three = RandomCount((0.5, 0.0, 0.5))
        >>> float(one_or_three.rank_cdf(0.5)) == 0.5 * 0.5 + 0.5 * 0.5**3
        True
        >>> one_or_three.rank_probabilities.round(4).tolist()
        [0.1667, 0.1667, 0.6667]
    """

    probabilities: tuple[float, ...]
    """Of each count, from 1."""
    rule: Literal["best", "worst", "median"] = "best"
    """What is answered."""
    label: str = ""
    """Name in figures; made from the fields where empty."""

    def __post_init__(self) -> None:
        q = np.asarray(self.probabilities, dtype=float)
        if q.ndim != 1 or not 1 <= len(q) <= MOST or not (q >= 0).all():
            raise ValueError(
                f"Probabilities of counts {self.probabilities} came; between 1 and {MOST} numbers "
                "≥ 0 are needed, of one, two, … candidates."
            )
        if not abs(q.sum() - 1) < 1e-9:
            raise ValueError(f"Probabilities of counts sum to {q.sum():.9g}; they must sum to 1.")
        if self.rule not in _RULES:
            raise ValueError(f"Rule {self.rule!r} is unknown; known: {', '.join(_RULES)}.")

    @property
    def name(self) -> str:
        counts = ", ".join(f"{n}: {q:g}" for n, q in enumerate(self.probabilities, 1) if q)
        return self.label or f"{self.rule}-of-random({counts})"

    @property
    def candidates(self) -> int:
        return int(np.flatnonzero(self.probabilities)[-1]) + 1

    @property
    def rank_probabilities(self) -> Float[np.ndarray, "N"]:
        return _rank_probabilities(self)

    def rank_cdf(self, v: Numbers) -> np.ndarray:
        v = np.asarray(v, dtype=float)
        return {
            "best": lambda: v * _horner(self._counts, v),
            "worst": lambda: v * _horner(self._more, 1 - v),
            "median": lambda: self._mixed("rank_cdf", v),
        }[self.rule]()

    def rank_density(self, v: Numbers) -> np.ndarray:
        v, slope = np.asarray(v, dtype=float), _derivative(np.append(0.0, self._counts))
        return {
            "best": lambda: _horner(slope, v),
            "worst": lambda: _horner(slope, 1 - v),
            "median": lambda: self._mixed("rank_density", v),
        }[self.rule]()

    def rank_density_slope(self, v: Numbers) -> np.ndarray:
        v = np.asarray(v, dtype=float)
        bend = _derivative(_derivative(np.append(0.0, self._counts)))
        return {
            "best": lambda: _horner(bend, v),
            "worst": lambda: -_horner(bend, 1 - v),
            "median": lambda: self._mixed("rank_density_slope", v),
        }[self.rule]()

    def rank_survival(self, x: Numbers) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        return {
            "best": lambda: x * _horner(self._more, 1 - x),
            "worst": lambda: x * _horner(self._counts, x),
            "median": lambda: self._mixed("rank_survival", x),
        }[self.rule]()

    def realised(self, rng: np.random.Generator) -> Procedure:
        """The rule among as many candidates as the dice say."""
        n = int(rng.choice(self.candidates, p=self._counts)) + 1
        return _RULES[self.rule](n).realised(rng)

    def mean_candidates(self, law: object) -> float:
        """Σ n·q_n, whatever the policy."""
        q = np.asarray(self.probabilities)
        return float(q @ np.arange(1, len(q) + 1) / q.sum())

    @cached_property
    def _counts(self) -> np.ndarray:
        """q_1, q_2, …"""
        q = np.asarray(self.probabilities[: self.candidates], dtype=float)
        return q / q.sum()

    @cached_property
    def _more(self) -> np.ndarray:
        """P(n > 0), P(n > 1), …: (1 − Σ q_n v^n)/(1 − v) as a polynomial, free of cancellation."""
        return np.cumsum(self._counts[::-1])[::-1]

    def _mixed(self, function: str, at: np.ndarray) -> np.ndarray:
        terms = zip(range(1, self.candidates + 1), self._counts, strict=True)
        rule = _RULES[self.rule]
        return np.asarray(sum(q * getattr(rule(n), function)(at) for n, q in terms if q))


def _horner(coefficients: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Σ c_k·v^k, elementwise."""
    return polynomial.polyval(v, coefficients)


def _derivative(coefficients: np.ndarray) -> np.ndarray:
    return polynomial.polyder(coefficients) if len(coefficients) > 1 else np.zeros(1)


@lru_cache(maxsize=64)
def _rank_probabilities(procedure: RandomCount) -> np.ndarray:
    most, q = procedure.candidates, procedure.probabilities
    ranks = np.zeros(most)
    for n in np.flatnonzero(q) + 1:
        ranks += q[n - 1] * subset_weights(most, _RULES[procedure.rule](n).rank_probabilities)
    ranks /= ranks.sum()
    ranks.setflags(write=False)
    return ranks


def best_of_poisson(mean: float) -> RandomCount:
    """Best of N = 1 + Poisson(mean − 1) candidates: G(v) = v·exp(−(mean − 1)(1 − v)).

    Args:
        mean: expected number of candidates, ≥ 1.

    Raises:
        ValueError: on a mean below 1 or above 512.

    Example:
        >>> best_of_poisson(4.0).candidates, round(float(best_of_poisson(4.0).rank_cdf(0.5)), 9)
        (23, 0.11156508)
    """
    _refuse_mean(mean, "poisson")
    return _truncated(stats.poisson(mean - 1), f"best-of-poisson({mean:g})")


def best_of_geometric(mean: float) -> RandomCount:
    """Best of a geometric number of candidates, going on each time with probability 1 − 1/mean.

    G(v) = p·v/(1 − (1−p)v) with p = 1/mean.

    Args:
        mean: expected number of candidates, ≥ 1.

    Raises:
        ValueError: on a mean below 1, or so large that more than 1,024 candidates may be needed.

    Example:
        >>> round(float(best_of_geometric(4.0).rank_cdf(0.5)), 9)  # ¼·½ / (1 − ¾·½)
        0.2
    """
    _refuse_mean(mean, "geometric")
    if mean == 1:
        return RandomCount((1.0,), label="best-of-geometric(1)")
    return _truncated(stats.geom(1 / mean, loc=-1), f"best-of-geometric({mean:g})")


def _refuse_mean(mean: float, what: str) -> None:
    if not 1 <= mean <= 512:
        raise ValueError(
            f"mean is {mean} in best-of-{what}; the expected number of candidates lies between 1 "
            "and 512."
        )


def _truncated(extra: "stats.rv_discrete | object", label: str) -> RandomCount:
    """Counts 1 + extra, cut off where larger ones are negligible, and scaled to sum to 1."""
    most = int(extra.isf(NEGLIGIBLE)) + 1  # pyright: ignore[reportAttributeAccessIssue]
    if most > MOST:
        raise ValueError(
            f"{label} needs up to {most} candidates for an answer; at most {MOST} are allowed. "
            "Use a smaller mean."
        )
    q = extra.pmf(np.arange(most))  # pyright: ignore[reportAttributeAccessIssue]
    return RandomCount(tuple(float(p) for p in q / q.sum()), label=label)
