"""Choose one of N weighted answers: what most of the weight says, or what it agrees with most.

Both only look at texts and weights, so they end a vote over samples and a chain over its states
alike. Among equals the choice is drawn by weight: a tie of keys is broken fairly, and the answer
is a fair specimen of those that gave the winning key.
"""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from infalign.decoding.voting.utilities import Utility

__all__ = ["agreement", "bayes_risk", "compared", "heaviest", "shares", "vote"]

Key = TypeVar("Key", bound=Hashable)

_TIE = 1e-12
"""Relative. Sums of the same weights in another order differ by less; real votes by more."""


def vote(
    keys: Sequence[Hashable | None], weights: Float[np.ndarray, "N"], rng: np.random.Generator
) -> int:
    """Index of an answer whose key has the most weight.

    arg max over keys κ of Σ_i w_i·1[κ_i = κ]

    Args:
        keys: what each of N answers says; None abstains. Where all abstain, all are equals.
        weights: ≥ 0, not all 0; they need not sum to 1.
        rng: draws among the equals, by weight.

    Raises:
        ValueError: no answers, or weights that are none.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> vote(["4", "5", "4", None], np.ones(4), rng) in (0, 2)
        True
        >>> vote(["4", "5", "4"], np.array([1.0, 3.0, 1.0]), rng)
        1
    """
    weights = _checked(weights, len(keys))
    said = shares(keys, weights)
    support = np.array([said.get(key, 0.0) if key is not None else 0.0 for key in keys])
    return heaviest(support, weights, rng)


def bayes_risk(
    texts: Sequence[str],
    weights: Float[np.ndarray, "N"],
    utility: Utility,
    rng: np.random.Generator,
) -> int:
    """Index of the answer of least Bayes risk: the one that agrees most with all, by weight.

    arg max over i of Σ_j w_j·utility(text_i, text_j), i itself among the j. Texts that occur more
    than once are compared once. With the utility 1[equal] it is :func:`vote` on the texts.

    Args:
        texts: N answers.
        weights: ≥ 0, not all 0; they need not sum to 1.
        utility: of each answer against each.
        rng: draws among equals, by weight.

    Raises:
        ValueError: no answers, weights that are none, or a utility of the wrong shape or not
            finite.

    Reference:
        Minimum Bayes-Risk Decoding for Statistical Machine Translation (HLT-NAACL 2004).

    Example:
        >>> from infalign.decoding.voting.utilities import ExactMatch
        >>> bayes_risk(["a", "b", "a"], np.array([1, 3, 1]), ExactMatch(), np.random.default_rng(0))
        1
    """
    weights = _checked(weights, len(texts))
    return heaviest(agreement(texts, weights, utility), weights, rng)


def agreement(
    texts: Sequence[str], weights: Float[np.ndarray, "N"], utility: Utility
) -> Float[np.ndarray, "N"]:
    """Σ_j w_j·utility(text_i, text_j)/Σ_j w_j of each answer i, in the utility's unit."""
    weights = _checked(weights, len(texts))
    said = shares(texts, weights)
    distinct = list(said)
    matrix, share = compared(distinct, utility), np.array(list(said.values()))
    means = dict(zip(distinct, (matrix @ share) / share.sum(), strict=True))
    return np.array([means[text] for text in texts])


def compared(texts: Sequence[str], utility: Utility) -> Float[np.ndarray, "C C"]:
    """utility(text_i, text_j) of all pairs.

    Raises:
        ValueError: a utility of the wrong shape or not finite.
    """
    count, matrix = len(texts), np.asarray(utility(texts, texts), dtype=np.float64)
    if matrix.shape != (count, count):
        raise ValueError(
            f"the utility {utility.name} gave shape {matrix.shape} for {count} answers against "
            f"{count}; one number for each pair is needed."
        )
    if not np.isfinite(matrix).all():
        first, second = (texts[i] for i in np.argwhere(~np.isfinite(matrix))[0])
        raise ValueError(
            f"the utility {utility.name} of {first[:60]!r} against {second[:60]!r} is not finite; "
            "answers cannot be compared by it."
        )
    return matrix


def shares(keys: Sequence[Key | None], weights: Float[np.ndarray, "N"]) -> dict[Key, float]:
    """Weight of each key, in order of appearance; those that abstain are left out.

    Example:
        >>> shares(["4", None, "5", "4"], np.array([0.25, 0.5, 0.125, 0.125]))
        {'4': 0.375, '5': 0.125}
    """
    said: dict[Key, float] = {}
    for key, weight in zip(keys, weights, strict=True):
        if key is not None:
            said[key] = said.get(key, 0.0) + float(weight)
    return said


def heaviest(
    support: Float[np.ndarray, "N"], weights: Float[np.ndarray, "N"], rng: np.random.Generator
) -> int:
    """Index of the largest support; among equals drawn by weight, uniformly if they have none."""
    top = support.max()
    best = np.flatnonzero(support >= top - _TIE * abs(top))
    odds = weights[best] if weights[best].sum() > 0 else np.ones(len(best))
    return int(rng.choice(best, p=odds / odds.sum()))


def _checked(weights: Float[np.ndarray, "N"], n: int) -> np.ndarray:
    """Weights, largest 1."""
    weights = np.asarray(weights, dtype=np.float64)
    if n == 0:
        raise ValueError("no answers came; at least one is needed to choose from.")
    fits = weights.shape == (n,) and np.isfinite(weights).all() and (weights >= 0).all()
    if not fits or weights.max() == 0:
        raise ValueError(
            f"weights {np.array2string(weights, threshold=6)} came for {n} answers; one finite "
            "weight ≥ 0 for each is needed, and not all may be 0."
        )
    return weights / weights.max()
