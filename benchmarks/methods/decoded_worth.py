"""What a decoded answer is worth on average, its gradient, and the laws where it is stationary."""

import dataclasses
from typing import Self, final

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from infalign.quantile.procedures import RankProcedure

__all__ = ["DecodedWorth"]

STEPS = 3000
"""Of an ascent at most; 10 to 300 are usual."""
LEAST = 1e-4
"""Of β, in units of h."""


@final
@dataclasses.dataclass(frozen=True)
class DecodedWorth:
    """E[h(answer)] of a law decoded by a rank procedure: Σ_i G(F_i)·(h_i − h_{i+1}), h_{C+1} = 0.

    Responses in order of reward, F their running sum, summed by parts. Ties need no care: equal
    rewards have equal h, so what F is between them does not count.
    """

    procedure: RankProcedure
    """G."""
    order: Int[np.ndarray, "P C"]
    """Responses from worst to best."""
    falls: Float[np.ndarray, "P C"]
    """h_i − h_{i+1} in that order."""

    @classmethod
    def of(
        cls,
        procedure: RankProcedure,
        rewards: Float[np.ndarray, "P C"],
        worth: Float[np.ndarray, "P C"],
    ) -> Self:
        """By what the procedure ranks by, and h."""
        order = np.argsort(rewards, axis=1, kind="stable")
        ordered = np.take_along_axis(worth, order, 1)
        return cls(procedure, order, -np.diff(ordered, axis=1, append=0.0))

    def __call__(
        self, law: Float[np.ndarray, "P C"]
    ) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P C"]]:
        """E[h], and its gradient by the law's masses."""
        cdf = np.cumsum(np.take_along_axis(law, self.order, 1), axis=1).clip(0.0, 1.0)
        value = (self.procedure.rank_cdf(cdf) * self.falls).sum(1)
        terms = self.procedure.rank_density(cdf) * self.falls
        slope = np.empty_like(law)
        np.put_along_axis(slope, self.order, np.cumsum(terms[:, ::-1], axis=1)[:, ::-1], 1)
        return value, slope

    def stationary(
        self, reference: Float[np.ndarray, "P C"], beta: float, close: float = 1e-9
    ) -> tuple[Float[np.ndarray, "P C"], Float[np.ndarray, "P"]]:
        """Where ascent of E[h] − β·KL from the reference ends, π ∝ π_ref·exp(∇E[h]/β); its KL.

        Steps go towards the tilt by the gradient, in log π; one that would lose is halved. They end
        where a whole step would move no mass by more than about `close`.
        """
        tilt, length = np.zeros_like(reference), np.ones((len(reference), 1))
        law, kl = _tilted(reference, tilt)
        value, slope = self(law)
        for _ in range(STEPS):
            tried = tilt + length * (slope / beta - tilt)
            new_law, new_kl = _tilted(reference, tried)
            new_value, new_slope = self(new_law)
            gain = (new_value - value) - beta * (new_kl - kl)
            left = np.abs(new_law - law).max(1, keepdims=True) / length
            better = (gain >= 0)[:, None]
            tilt, law = np.where(better, tried, tilt), np.where(better, new_law, law)
            slope = np.where(better, new_slope, slope)
            value = np.where(better[:, 0], new_value, value)
            kl = np.where(better[:, 0], new_kl, kl)
            length = np.where(better, np.minimum(1.3 * length, 1.0), length / 2)
            if left.max() < close:
                break
        return law, kl

    def beta_for_kl(self, reference: Float[np.ndarray, "P C"], kl: float) -> float:
        """The one β at which the stationary laws have mean KL `kl`, to about 0.001.

        Where only a β below LEAST times the largest difference of h would do, it is that one: the
        answer is as good as the best already, and what remains of the gradient is rounding.
        """

        def excess(log_beta: float) -> float:
            laws = self.stationary(reference, float(np.exp(log_beta)), close=1e-5)
            return float(laws[1].mean()) - kl

        # Less the last, which is h of the best response against nothing and moves no law.
        high = float(np.log(np.abs(self.falls[:, :-1]).sum(1).max()))
        least = high + float(np.log(LEAST))
        while excess(high) > 0:
            high += 1.0
        low = high
        while excess(low) < 0:
            if low <= least:
                return float(np.exp(least))
            low, high = max(low - 1.0, least), low
        return float(np.exp(brentq(excess, low, high, xtol=1e-3)))  # pyright: ignore


def _tilted(reference: np.ndarray, tilt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """π_ref·exp(tilt)/Z and its KL."""
    top = np.where(reference > 0, tilt, -np.inf).max(1, keepdims=True)
    weights = reference * np.exp(tilt - top)
    total = weights.sum(1, keepdims=True)
    law = weights / total
    return law, (law * (tilt - top - np.log(total))).sum(1)
