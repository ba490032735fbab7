"""Procedures on finitely many responses: a policy's masses → the masses of its answer.

What :func:`infalign.quantile.atoms.mirror.mirror_ascent` needs to know of a procedure. Rank
procedures look at the order of rewards alone; quantile procedures at quantiles under the reference,
where each value of the reward occupies an interval.
"""

import dataclasses
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.quantile.mesh import FINE, Mesh
from infalign.quantile.procedures import Procedure, RankProcedure
from infalign.quantile.ties import Ties

__all__ = ["QuantileDecoding", "RankDecoding", "decode_of"]


def decode_of(
    procedure: Procedure,
    rewards: Float[np.ndarray, "C"],
    reference_masses: Float[np.ndarray, "C"] | None = None,
) -> "RankDecoding | QuantileDecoding":
    """How a procedure that selects by these rewards decodes masses of C responses.

    Args:
        procedure: any.
        rewards: what it selects by; equal ones are told apart by chance.
        reference_masses: needed by procedures that look at quantiles.

    Raises:
        ValueError: if such a procedure comes without reference masses.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> decode_of(BestOfN(2), np.array([0.0, 1.0, 1.0]))(np.array([0.5, 0.25, 0.25])).tolist()
        [0.25, 0.375, 0.375]
    """
    if isinstance(procedure, RankProcedure):
        return RankDecoding(procedure, rewards)
    if reference_masses is None:
        raise ValueError(
            f"{procedure.name} selects by quantiles under the reference; give reference_masses, "
            "one for each response."
        )
    return QuantileDecoding(procedure, rewards, reference_masses)


class _Grouped:
    """Responses grouped by equal reward."""

    rewards: Float[np.ndarray, "C"]
    """What groups them."""

    @cached_property
    def _group(self) -> np.ndarray:
        """Of each response: its place among the distinct rewards."""
        return np.unique(self.rewards, return_inverse=True)[1]

    @cached_property
    def _members(self) -> np.ndarray:
        return (self._group[:, None] == np.arange(self._group.max() + 1)).astype(float)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class RankDecoding(_Grouped):
    """T(π)_i = (π_i/m)·(G(F) − G(F − m)), with m and F those of the responses of equal reward."""

    procedure: RankProcedure
    """G."""
    rewards: Float[np.ndarray, "C"]
    """What is ranked."""

    def __call__(self, masses: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... C"]:
        grouped, cdf = self._grouped(masses)
        return masses * self._shares(grouped, cdf)[..., self._group]

    def pullback(
        self, masses: Float[np.ndarray, "C"], worth: Float[np.ndarray, "C"]
    ) -> Float[np.ndarray, "C"]:
        """∇ Σ T(π)·h. Mass moved into a group shifts every F above it, and its share within."""
        grouped, cdf = self._grouped(masses)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (masses * worth) @ self._members / grouped
        mean = np.where(grouped > 0, mean, worth @ self._members / self._members.sum(axis=0))
        falls = self.procedure.rank_density(cdf) * (mean - np.append(mean[1:], 0.0))
        shifted = np.cumsum(falls[::-1])[::-1]
        inside = (worth - mean[self._group]) * self._shares(grouped, cdf)[self._group]
        return inside + shifted[self._group]

    def _grouped(self, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grouped = masses @ self._members
        return grouped, np.clip(np.cumsum(grouped, axis=-1), 0.0, 1.0)

    def _shares(self, grouped: np.ndarray, cdf: np.ndarray) -> np.ndarray:
        """(G(F) − G(F − m))/m of each group."""
        increments = np.diff(self.procedure.rank_cdf(cdf), axis=-1, prepend=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = increments / grouped
        return np.where(grouped > 1e-9, shares, self.procedure.rank_density(cdf))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class QuantileDecoding(_Grouped):
    """The decoded law of a step function, one step for each value of the reward."""

    procedure: Procedure
    """T."""
    rewards: Float[np.ndarray, "C"]
    """What it selects by."""
    reference_masses: Float[np.ndarray, "C"]
    """The quantiles of the rewards are those under these."""

    def __call__(self, masses: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... C"]:
        grouped = masses @ self._members
        density = (grouped / self._steps)[..., self._step_of]
        decoded = self.procedure.decoded_density(self._mesh, density)
        weighed = (decoded * self._mesh.weights) @ self._on_step
        return masses * (weighed / grouped)[..., self._group]

    @cached_property
    def _steps(self) -> np.ndarray:
        return self.reference_masses @ self._members

    @cached_property
    def _mesh(self) -> Mesh:
        ties = Ties.of_masses(self._steps)
        return Mesh.of(FINE, self.procedure.breaks, ties)

    @cached_property
    def _step_of(self) -> np.ndarray:
        return self._mesh.ties.index(self._mesh.u)

    @cached_property
    def _on_step(self) -> np.ndarray:
        return (self._step_of[:, None] == np.arange(len(self._steps))).astype(float)
