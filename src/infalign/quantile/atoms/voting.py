"""Voting: n answers are sampled and the most frequent one is given, whatever any reward says.

A vote looks at which answers are equal, not at how good they are, so it lives on a finite set of
distinct answers and not on [0,1]. Its law is exact, and so is the best policy for it, by
:func:`infalign.quantile.atoms.mirror.mirror_ascent`.
"""

import dataclasses
import math
from typing import final

import numpy as np
from jaxtyping import Float, Int

__all__ = ["MajorityVote"]

MOST = 128
"""Votes at most: the factorials stay far from overflow."""


@final
@dataclasses.dataclass(frozen=True)
class MajorityVote:
    """Sample n answers, give the most frequent; ties between answers are broken evenly.

    P(i wins) = Σ_k n!·[xⁿ] (p_i x)ᵏ/k! · ∫₀¹ Π_{j≠i} (Σ_{c<k} (p_j x)ᶜ/c! + z·(p_j x)ᵏ/k!) dz

    i wins with k votes, every other answer has fewer or, marked by z, as many: m such ties leave
    ∫zᵐ = 1/(m+1). It costs about C·n³ additions.

    Args:
        n: votes, 1 … 128.

    Raises:
        ValueError: on another n.

    Reference:
        Self-consistency improves chain of thought reasoning in language models (arXiv:2203.11171).

    Example:
        >>> MajorityVote(3).decoded_masses(np.array([0.6, 0.4])).round(12).tolist()
        [0.648, 0.352]
        >>> MajorityVote(2).decoded_masses(np.array([0.6, 0.4])).round(12).tolist()
        [0.6, 0.4]
    """

    n: int
    """Votes."""

    def __post_init__(self) -> None:
        if self.n != int(self.n) or not 1 <= self.n <= MOST:
            raise ValueError(f"n is {self.n} votes; an integer from 1 to {MOST} is needed.")

    @property
    def name(self) -> str:
        """What a figure's legend shows."""
        return f"majority-of-{self.n}"

    @property
    def candidates(self) -> int:
        """n."""
        return self.n

    def decoded_masses(self, masses: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... C"]:
        """Probability that each of C distinct answers wins; complex masses are allowed.

        Raises:
            ValueError: if a row of masses does not sum to 1.
        """
        masses = np.asarray(masses)
        sums = np.real(masses.sum(axis=-1))
        if not np.all(np.abs(sums - 1) < 1e-6):
            raise ValueError(
                f"Masses sum to {sums.ravel()[np.argmax(np.abs(sums - 1))]:.8g}; those of each "
                "policy must sum to 1."
            )
        wins = np.zeros_like(masses, dtype=np.result_type(masses, float))
        counts = np.arange(self.n + 1)
        factorials = np.array([float(math.factorial(c)) for c in counts])
        powers = masses[..., None] ** counts / factorials  # (p x)ᶜ/c! of each answer
        for k in range(-(-self.n // masses.shape[-1]), self.n + 1):
            wins += powers[..., k] * _others(powers, k, self.n - k)
        return wins * factorials[-1]

    def select(
        self, answers: Int[np.ndarray, "... n"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        """Index of a candidate that gives the most frequent answer.

        Args:
            answers: a number for each distinct answer; candidates are on the last axis.
            rng: breaks ties.

        Raises:
            ValueError: if the last axis does not have exactly n entries.

        Example:
            >>> answers, rng = np.array([7, 3, 3, 1]), np.random.default_rng(0)
            >>> int(answers[MajorityVote(4).select(answers, rng)])
            3
        """
        answers = np.asarray(answers)
        if answers.ndim < 1 or answers.shape[-1] != self.n:
            raise ValueError(
                f"{self.name} counts {self.n} votes; an array of shape {answers.shape} came. The "
                "last axis holds the candidates of one answer."
            )
        votes = (answers[..., :, None] == answers[..., None, :]).sum(axis=-1)
        # Tied answers have as many candidates each, so an even choice of candidate is even.
        lots = np.where(votes == votes.max(axis=-1, keepdims=True), rng.random(votes.shape), -1.0)
        return np.argmax(lots, axis=-1)


def _others(powers: np.ndarray, k: int, rest: int) -> np.ndarray:
    """[x^rest] ∫₀¹ Π_{j≠i}(…) dz for every i: products of all before i and all after it."""
    answers = powers.shape[-2]
    ties = min(answers - 1, rest // k)  # degree in z
    nodes, weights = np.polynomial.legendre.leggauss(ties // 2 + 1)
    z = (nodes + 1) / 2
    terms = np.repeat(powers[..., None, : min(k, rest) + 1], len(z), axis=-2)
    if k <= rest:
        terms = np.concatenate([terms[..., :k], z[:, None] * terms[..., k:]], axis=-1)
    one = np.zeros((*powers.shape[:-2], len(z), rest + 1), dtype=powers.dtype)
    one[..., 0] = 1.0
    before, after = [one], [one]
    for j in range(answers - 1):
        before.append(_product(before[-1], terms[..., j, :, :]))
        after.append(_product(after[-1], terms[..., answers - 1 - j, :, :]))
    coefficients = [
        np.sum(first * last[..., ::-1], axis=-1) @ (weights / 2)
        for first, last in zip(before, reversed(after), strict=True)
    ]
    return np.stack(coefficients, axis=-1)


def _product(polynomial: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Of two polynomials in x, cut off at the degree of the first."""
    total = polynomial * factor[..., :1]
    for c in range(1, factor.shape[-1]):
        total[..., c:] += polynomial[..., :-c] * factor[..., c : c + 1]
    return total
