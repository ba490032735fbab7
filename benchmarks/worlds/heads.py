"""Reward heads from pairs: Bradley–Terry by logistic regression on differences of features.

What people or a judge prefer becomes a reward: P(first preferred) = σ(w·(features − features′)).
A head is judged by the pairs it gets right among those it was not fitted on, group by group, so
that answers to one prompt never sit on both sides.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

from infalign.rewards.heads import LinearHead

__all__ = ["HeldOut", "Pairs", "accuracy", "fit_pairs", "held_out"]

PENALTIES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Of the squared weights on standardised differences, beside the mean log-loss."""
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Pairs:
    """N pairs, the preferred one first."""

    better: Float[np.ndarray, "N D"]
    """Features of the preferred."""
    worse: Float[np.ndarray, "N D"]
    """Features of the other."""
    groups: Int[np.ndarray, "N"]
    """Prompt of each pair."""

    @property
    def differences(self) -> Float[np.ndarray, "N D"]:
        """Features of the preferred less those of the other."""
        return self.better.astype(np.float64) - self.worse

    def select(self, rows: np.ndarray) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.better[rows], self.worse[rows], self.groups[rows])


def accuracy(head: LinearHead, pairs: Pairs) -> float:
    """Share of pairs that the head orders as they are, ties half.

    Example:
        >>> pairs = Pairs(np.array([[2.0], [0.0]]), np.array([[1.0], [0.0]]), np.arange(2))
        >>> accuracy(LinearHead(np.array([1.0]), 0.0), pairs)
        0.75
    """
    margin = head(pairs.better) - head(pairs.worse)
    return float((np.sign(margin) + 1).mean() / 2)


def fit_pairs(pairs: Pairs, penalties: Sequence[float] = PENALTIES) -> LinearHead:
    """Logistic regression on standardised differences; penalty by validation over groups.

    Its record says how many pairs and groups there were, the penalty chosen and the accuracy in
    cross-validation (that of the chosen penalty, so a little favourable).
    """
    found = [_validated(pairs, penalty) for penalty in penalties]
    best = int(np.argmax(found))
    head = _fitted(pairs.differences, penalties[best])
    record = {
        "pairs": len(pairs.groups),
        "prompts": len(np.unique(pairs.groups)),
        "penalty": penalties[best],
        "validation_accuracy": round(found[best], 4),
    }
    return dataclasses.replace(head, record=record)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """How a head does on pairs it has not seen."""

    accuracy: float
    """Share ordered rightly."""
    error: float
    """Standard error, clustered by prompt."""
    pairs: int
    """How many."""


def held_out(head: Callable[[np.ndarray], np.ndarray], pairs: Pairs) -> HeldOut:
    """Accuracy on pairs of other prompts."""
    right = (np.sign(head(pairs.better) - head(pairs.worse)) + 1) / 2
    names, place = np.unique(pairs.groups, return_inverse=True)
    residual = np.bincount(place, right - right.mean())
    error = np.sqrt((residual**2).sum() * len(names) / max(len(names) - 1, 1)) / len(right)
    return HeldOut(float(right.mean()), float(error), len(right))


def _validated(pairs: Pairs, penalty: float) -> float:
    """Accuracy over folds of groups."""
    _, place = np.unique(pairs.groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(place.max() + 1)[place] % FOLDS
    right = 0.0
    for out in range(FOLDS):
        head = _fitted(pairs.select(fold != out).differences, penalty)
        right += accuracy(head, pairs.select(fold == out)) * (fold == out).sum()
    return float(right / len(fold))


def _fitted(differences: Float[np.ndarray, "N D"], penalty: float) -> LinearHead:
    """Without intercept: which of a pair stands first says nothing."""
    scale = np.sqrt((differences**2).mean(0)) + 1e-12
    standard = differences / scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = standard @ weights
        slope = -special.expit(-margin)
        value = np.logaddexp(0, -margin).mean() + penalty * weights @ weights
        return float(value), standard.T @ slope / len(margin) + 2 * penalty * weights

    start = np.zeros(standard.shape[1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", tol=1e-7)
    return LinearHead(found.x / scale, 0.0)
