"""Objective: what a policy is worth, W = Σ_k c_k·∫ h_k dT_k(F), and its first variation.

One term is the win rate of one procedure against one opponent. A weighted sum of several is what a
policy decoded in more than one way is worth, and what a robust transform maximises.
"""

import dataclasses
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.quantile.mesh import Mesh
from infalign.quantile.opponent import Opponent
from infalign.quantile.procedures import Procedure
from infalign.quantile.ties import Ties

__all__ = ["Objective", "Term"]


@final
@dataclasses.dataclass(frozen=True)
class Term:
    """One procedure against one opponent."""

    procedure: Procedure
    """Decodes the aligned policy."""
    opponent: Opponent
    """What its answer is up against."""
    weight: float = 1.0
    """c. ≥ 0."""


@final
@dataclasses.dataclass(frozen=True)
class Objective:
    """A weighted sum of win rates of one policy.

    Args:
        terms: at least one; all on the same ties.

    Raises:
        ValueError: without terms, with a negative weight, no weight at all, or different ties.

    Example:
        >>> from infalign.quantile.mesh import FINE
        >>> from infalign.quantile.procedures import BestOfN
        >>> objective = Objective((Term(BestOfN(4), Opponent(BestOfN(4))),))
        >>> mesh = objective.mesh(FINE)
        >>> round(float(objective.win_rate(mesh, 4 * mesh.u**3)), 12)
        0.8
    """

    terms: tuple[Term, ...]
    """Of the sum."""

    def __post_init__(self) -> None:
        weights = [term.weight for term in self.terms]
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"Weights {weights} came; an objective needs at least one term, weights ≥ 0 and "
                "one of them positive."
            )
        if len({term.opponent.ties for term in self.terms}) > 1:
            raise ValueError("Terms with different ties came; there is one selecting reward.")

    @classmethod
    def of(
        cls,
        procedure: Procedure,
        reference_procedure: Procedure | None,
        agreement: float,
        ties: Ties,
    ) -> "Objective":
        """The win rate after decoding of one procedure."""
        opponent = Opponent(reference_procedure or procedure, agreement, ties)
        return cls((Term(procedure, opponent),))

    @property
    def ties(self) -> Ties:
        """Of the selecting reward."""
        return self.terms[0].opponent.ties

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which something kinks or jumps."""
        found = {b for t in self.terms for b in (*t.procedure.breaks, *t.opponent.breaks)}
        return tuple(sorted(found))

    @property
    def name(self) -> str:
        """The procedures'."""
        return " + ".join(term.procedure.name for term in self.terms if term.weight)

    def mesh(self, edges: Float[np.ndarray, "E"] | tuple[float, ...]) -> Mesh:
        """A mesh that ends at all breaks."""
        return Mesh.of(tuple(edges), self.breaks, self.ties)

    def win_rate(self, mesh: Mesh, density: Float[np.ndarray, "... X"]) -> Float[np.ndarray, "..."]:
        """Σ c·(1 − ∫ loss dT(F)): with one term of weight 1, the win rate in [0,1]."""
        total = np.zeros(np.shape(density)[:-1])
        for term, loss in zip(self.terms, self._losses(mesh), strict=True):
            decoded = term.procedure.decoded_density(mesh, density)
            total = total + term.weight * (1 - mesh.integral(decoded * loss))
        return total

    def first_variation(
        self, mesh: Mesh, density: Float[np.ndarray, "... X"]
    ) -> Float[np.ndarray, "... X"]:
        """ψ with δW = ∫ ψ δf, up to a constant.

        An answer's worth is counted from the best one's: small where an aligned policy lives, so
        that ψ keeps its digits when it is divided by a small β.
        """
        total = np.zeros_like(density)
        for term, loss, least in zip(
            self.terms, self._losses(mesh), self._least_losses, strict=True
        ):
            if term.weight:
                worth = least - loss
                total += term.weight * term.procedure.first_variation(mesh, density, worth)
        return self._tied(mesh, density, total)

    @cached_property
    def _least_losses(self) -> list[float]:
        """Of each term: what the best answer loses."""
        top = np.ones(1), np.zeros(1)
        return [float(term.opponent.loss(*top)[0]) for term in self.terms]

    def _losses(self, mesh: Mesh) -> list[np.ndarray]:
        kept = mesh.__dict__.setdefault("_losses", {})  # as long as the mesh they belong to
        if self.terms not in kept:
            kept[self.terms] = [t.opponent.loss(mesh.u, mesh.x) for t in self.terms]
        return kept[self.terms]

    def _tied(self, mesh: Mesh, density: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Nothing tells the responses of a tie apart: ψ there is its mean under the reference."""
        tie = mesh.ties.index(mesh.u)
        for number in range(len(mesh.ties.intervals)):
            inside = tie == number
            share = mesh.weights * inside
            mean = (values @ share) / share.sum()
            values = np.where(inside, mean[..., None], values)
        return values
