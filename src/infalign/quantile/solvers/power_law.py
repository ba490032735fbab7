"""The optimal law of best-of-N or worst-of-N at one β: a piece of the one curve."""

import dataclasses
from functools import cached_property
from typing import final

import numpy as np

from infalign.quantile.solvers.similarity import PowerCurve
from infalign.quantile.solvers.stationary import StationaryLaw

__all__ = ["PowerLaw"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class PowerLaw(StationaryLaw):
    """One piece of a curve: the optimal law of a power procedure at one β."""

    curve: PowerCurve
    """What it is a piece of."""
    end: float
    """ℓ where it ends: log(n·m/β)."""

    @property
    def beta(self) -> float:
        return self.curve.n * self.curve.m * float(np.exp(-self.end))

    @property
    def kl(self) -> float:
        return float(self._ends[3])

    @property
    def win_rate(self) -> float:
        return float(self.curve.win_rates(np.array([self.end]))[0])

    @cached_property
    def _ends(self) -> np.ndarray:
        return self.curve.at(np.array([self.end]))[:, 0]

    def evaluate(self, u: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        best, (_, place_end, height_end, _) = self.curve.sign > 0, self._ends
        near, far = (u, x) if best else (x, u)
        with np.errstate(divide="ignore"):
            depth = -np.where(far < 0.5, np.log1p(-far), np.log(near))
        depth = np.minimum(depth, 600.0)
        place = place_end - depth
        if self.curve.blows_up:
            place = -np.log(np.exp(-place_end) + depth)
        lam, _, height, _ = self.curve.at(self.curve.ell_at_place(place))
        mass = np.where(near > 0, np.exp(height - height_end), 0.0)
        return lam + height - height_end + depth, mass if best else 1 - mass
