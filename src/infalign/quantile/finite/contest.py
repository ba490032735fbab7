"""Contest: a policy known piece by piece, decoded, against the reference's decoded answer.

What the finite world needs of a win rate: that of a step function, for many step functions at once.
"""

import dataclasses
from functools import lru_cache
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from infalign.quantile.finite.worlds import Worlds
from infalign.quantile.mesh import COARSE, FINE, Mesh
from infalign.quantile.opponent import Opponent
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import Procedure, RankProcedure
from infalign.quantile.ties import Ties
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Transform
from infalign.quantile.win_rate import averaged_over, win_rate

__all__ = ["Chosen", "Contest"]

Chosen = Transform | Literal["optimal"]
"""A transform, or the best one at each KL."""
NODES = 24
"""Gauss nodes per piece at most: exact up to N = 24, within 1e-8 for N = 128 and K = 64."""

ENDS = tuple(side for j in range(2, 10) for side in (0.25**j, 1 - 0.25**j))
"""An imperfect judge's h is smooth in normal scores, so ever steeper in u towards both ends."""


COLDER = 0.98
"""Share of β at which a slope is read off."""


@final
@dataclasses.dataclass(frozen=True)
class Contest:
    """Who is decoded how, and who judges."""

    procedure: Procedure
    """Decodes the aligned policy."""
    opponent: Opponent
    """What its answer is up against."""

    @classmethod
    def of(
        cls,
        procedure: Procedure,
        reference_procedure: Procedure | None,
        agreement: float,
        ties: Ties,
    ) -> "Contest":
        """By the reference's procedure, the judge and the ties."""
        return cls(procedure, Opponent(reference_procedure or procedure, agreement, ties))

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which something kinks or jumps, or steepens without bound."""
        steep = () if self.opponent.agreement == 1 else ENDS
        return (*self.procedure.breaks, *self.opponent.breaks, *steep)

    def win_rate(self, worlds: Worlds, transform: Transform, kl: float) -> float:
        """Mean over the worlds, at one β that makes their mean KL the given one."""
        rates = self._win_rates(worlds, transform, worlds.beta_for_kl(transform, kl))
        return float(worlds.weights @ rates)

    def estimate(self, worlds: Worlds, transform: Transform, kl: float) -> tuple[float, float]:
        """The same mean, and its standard error where the worlds are draws."""
        beta = worlds.beta_for_kl(transform, kl)
        rates = self._win_rates(worlds, transform, beta)
        wins = float(worlds.weights @ rates)
        if worlds.moments is None:
            return wins, 0.0
        # A draw with a larger KL moves β, too: its influence is W_d − dW/dKL·KL_d.
        kls, colder = worlds.kls(transform, beta), beta * COLDER
        rise = worlds.weights @ (self._win_rates(worlds, transform, colder) - rates)
        slope = rise / (worlds.weights @ (worlds.kls(transform, colder) - kls))
        return wins, worlds.standard_error(rates - slope * kls)

    def _win_rates(self, worlds: Worlds, transform: Transform, beta: float) -> np.ndarray:
        """Of each world."""
        if not isinstance(self.procedure, RankProcedure):
            return self._by_mesh(worlds, transform, beta)
        degree = self.procedure.candidates + self.opponent.procedure.candidates
        is_polynomial = self.opponent.agreement == 1
        nodes = min((degree + 1) // 2 + (0 if is_polynomial else 4), NODES)
        return worlds.win_rates(transform, beta, self.procedure, self._loss, nodes)

    def perfect(self, transform: Transform, kl: float) -> float:
        """With perfect calibration."""
        seen = averaged_over(self.opponent.ties, transform)
        return win_rate(
            TiltedPolicy(seen, beta_for_kl(seen, kl)),
            self.procedure,
            self.opponent.procedure,
            agreement=self.opponent.agreement,
            ties=self.opponent.ties,
        )

    def chosen(self, transform: Chosen, kl: float) -> Transform:
        """The transform itself, or the best one at this KL with perfect calibration."""
        if isinstance(transform, Transform):
            return transform
        if transform != "optimal":
            raise ValueError(f"transform is {transform!r}; give a transform object, or 'optimal'.")
        return optimal_transform(
            self.procedure,
            kl=kl,
            reference_procedure=self.opponent.procedure,
            agreement=self.opponent.agreement,
            ties=self.opponent.ties,
        )

    def _loss(self, u: np.ndarray) -> np.ndarray:
        """1 − h, from a table where it takes an integral."""
        opponent, ties = self.opponent, self.opponent.ties
        if opponent.agreement == 1 and isinstance(opponent.procedure, RankProcedure):
            # Ties half: on a tie the decoded reference's CDF is a chord, and its middle counts.
            ends = opponent.procedure.rank_cdf(np.stack([ties.starts, ties.ends]))
            return 1 - ties.replaced(u, opponent.procedure.rank_cdf(u), ends.mean(axis=0))
        if opponent.agreement == 1:
            return opponent.loss(u, 1 - u)
        mesh, loss = _tabulated(self.opponent)
        return mesh.interpolated(loss, u, 1 - u)

    def _by_mesh(self, worlds: Worlds, transform: Transform, beta: float) -> Float[np.ndarray, "D"]:
        """One mesh for each world, ending where its pieces end: for procedures on whole laws."""
        densities, rates = worlds.densities(transform, beta), []
        for edges, density in zip(worlds.edges, densities, strict=True):
            inner = (*edges[1:-1].tolist(), *self.breaks)
            mesh = Mesh.of(COARSE, inner, self.opponent.ties)
            piece = np.clip(np.searchsorted(edges, mesh.u, "right") - 1, 0, len(density) - 1)
            decoded = self.procedure.decoded_density(mesh, density[piece])
            rates.append(1 - mesh.integral(decoded * self._loss(mesh.u)))
        return np.array(rates)


@lru_cache(maxsize=64)
def _tabulated(opponent: Opponent) -> tuple[Mesh, np.ndarray]:
    mesh = Mesh.of(FINE, opponent.breaks, opponent.ties)
    return mesh, opponent.loss(mesh.u, mesh.x)
