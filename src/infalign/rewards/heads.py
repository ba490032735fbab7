"""A linear map from an encoder's features to a rating, fitted once by ridge regression.

A few hundred numbers are the whole reward model above its frozen encoder, so they are shipped with
the library, together with how well they did on ratings they were not fitted to.
"""

import dataclasses
import importlib.resources
import json
from typing import Any, Self

import numpy as np
from jaxtyping import Float

__all__ = ["LinearHead", "fit_ridge"]

_PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """rating ≈ weights·features + intercept."""

    weights: Float[np.ndarray, "D"]
    """In the features' own units."""
    intercept: float
    """Rating at features zero."""
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How it was fitted and how well it does: part, count, penalty, held-out Pearson."""

    def __call__(self, features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N"]:
        """Predicted ratings."""
        return features.astype(np.float64) @ self.weights + self.intercept

    @classmethod
    def shipped(cls, name: str) -> Self:
        """A head that comes with the library: `minilm-training`, `smollm2-gold`, ..."""
        file = importlib.resources.files("infalign.rewards") / "heads" / f"{name}.json"
        stored = json.loads(file.read_text(encoding="utf-8"))
        return cls(np.array(stored["weights"]), stored["intercept"], stored["record"])

    def to_json(self) -> str:
        """The form in which heads are shipped: nine significant digits, one line."""
        stored = {
            "record": self.record,
            "intercept": float(f"{self.intercept:.9g}"),
            "weights": [float(f"{weight:.9g}") for weight in self.weights],
        }
        return json.dumps(stored) + "\n"


def fit_ridge(
    features: Float[np.ndarray, "N D"], ratings: Float[np.ndarray, "N"]
) -> tuple[LinearHead, float]:
    """Ridge regression on standardised features, its penalty chosen by five-fold validation.

    Language models have a few feature directions that are a hundred times longer than the rest;
    without standardisation the penalty would act on the others alone.

    Returns:
        the head, in the features' own units, and the penalty chosen.
    """
    fold = np.arange(len(ratings)) % _FOLDS
    errors = []
    for penalty in _PENALTIES:
        heads = [_ridge(features[fold != f], ratings[fold != f], penalty) for f in range(_FOLDS)]
        residuals = [heads[f](features[fold == f]) - ratings[fold == f] for f in range(_FOLDS)]
        errors.append(float(np.mean(np.concatenate(residuals) ** 2)))
    penalty = _PENALTIES[int(np.argmin(errors))]
    return _ridge(features, ratings, penalty), penalty


def _ridge(features: np.ndarray, ratings: np.ndarray, penalty: float) -> LinearHead:
    center = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64) + 1e-12
    standard = (features - center) / scale
    gram = standard.T @ standard
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.linalg.solve(gram, standard.T @ (ratings - ratings.mean())) / scale
    return LinearHead(weights, float(ratings.mean() - center @ weights))
