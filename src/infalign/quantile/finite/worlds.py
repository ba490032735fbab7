"""Worlds: where the K calibration rollouts may have fallen, and what training makes of each.

After K rollouts a response is known by its rank alone. So every world cuts [0,1] into pieces on
which the training reward is one number, and the aligned policy is a step function.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.optimize import brentq

from infalign.quantile.finite.portable import portable_gaps
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.transforms import Transform

__all__ = ["Worlds"]

AT_ONCE = 2**19
"""Pieces × nodes held in memory at a time."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Worlds:
    """Outcomes of calibrating with K rollouts, each with its probability.

    Example:
        >>> worlds = Worlds.of(k=2, ties=Ties.pass_fail(0.5))
        >>> worlds.weights.round(9).tolist(), worlds.edges[0].tolist()
        ([0.25, 0.5, 0.25], [0.0, 0.5, 1.0])
        >>> worlds.below.tolist(), worlds.tied.tolist()
        ([[0, 2], [0, 1], [0, 0]], [[2, 0], [1, 1], [0, 2]])
    """

    k: int
    """Rollouts per prompt."""
    weights: Float[np.ndarray, "D"]
    """Probability of each world; they sum to 1."""
    edges: Float[np.ndarray, "D E"]
    """Of the M pieces, from 0 to 1."""
    below: Int[np.ndarray, "#D M"]
    """Rollouts below a piece."""
    tied: Int[np.ndarray, "#D M"]
    """Rollouts that tie with it."""
    moments: Float[np.ndarray, "D 3"] | None = None
    """Means of u, u² and u³ over the rollouts, less their expectation; None for all worlds."""

    @classmethod
    def of(
        cls,
        k: int,
        ties: Ties = NO_TIES,
        draws: int = 400,
        rng: np.random.Generator | None = None,
        breaks: Sequence[float] = (),
    ) -> "Worlds":
        """All K + 1 worlds of a pass/fail reward; otherwise random ones.

        Args:
            k: rollouts per prompt, ≥ 2.
            ties: quantiles that share a reward.
            draws: how many random worlds.
            rng: draws them; where None they are the portable ones, the same everywhere.
            breaks: quantiles at which pieces have to end, too.

        Raises:
            ValueError: if k < 2 or draws < 1.
        """
        if k != int(k) or k < 2:
            raise ValueError(f"k is {k}; calibrating takes at least 2 rollouts per prompt.")
        if draws != int(draws) or draws < 1:
            raise ValueError(f"draws is {draws}; at least one calibration is needed.")
        if ties.has_two_values:
            return _pass_fail_worlds(k, ties.breaks[0])
        if rng is None:
            quantiles = np.cumsum(portable_gaps(draws, k), axis=1)[:, :-1]
        else:
            quantiles = np.sort(rng.random((draws, k)), axis=1)
        cuts = sorted({b for b in (*breaks, *ties.breaks) if 0 < b < 1})
        worlds = _tied_worlds(quantiles, ties, cuts) if cuts or ties else _worlds(quantiles)
        moments = [(quantiles**j).mean(axis=1) - 1 / (j + 1) for j in (1, 2, 3)]
        return dataclasses.replace(worlds, moments=np.stack(moments, axis=1))

    @cached_property
    def gaps(self) -> Float[np.ndarray, "D M"]:
        """Reference mass of each piece."""
        return np.diff(self.edges, axis=1)

    def balanced(self) -> "Worlds":
        """Weighed so that the mean of u, u² and u³ over all rollouts is exact: less noise.

        What a win rate owes to the rollouts as a whole is close to linear in such means.
        """
        features = self._features()
        square = features.T @ features
        if self.moments is None or np.linalg.cond(square) > 1e12:  # too few draws, or all alike
            return self
        missing = np.array([1.0, 0, 0, 0]) - self.weights @ features
        correction = features @ np.linalg.solve(square, missing)
        return dataclasses.replace(self, weights=self.weights + correction)

    def standard_error(self, values: Float[np.ndarray, "D"]) -> float:
        """Of the balanced mean of independent values; 0 where these are all worlds there are."""
        if self.moments is None:
            return 0.0
        features = self._features()
        left = values - features @ np.linalg.lstsq(features, values, rcond=None)[0]
        count, used = features.shape
        return float(np.sqrt(left @ left / max(count - used, 1) / count))

    def _features(self) -> Float[np.ndarray, "D P"]:
        one = np.ones((len(self.weights), 1))
        return one if self.moments is None else np.append(one, self.moments, axis=1)

    def training_rewards(self, transform: Transform) -> Float[np.ndarray, "#D M"]:
        """Φ̄ of each piece: the posterior mean of Φ given the rank, over tied ranks where tied."""
        return transform.posterior_mean(self.below, self.tied, self.k)

    def largest_kl(self, transform: Transform) -> float:
        """Mean KL of putting all mass on the piece with the largest training reward. Nats."""
        phi = self.training_rewards(transform)
        top = (self.gaps * (phi >= phi.max(axis=1, keepdims=True))).sum(axis=1)
        return float(-self.weights @ np.log(top))

    def kl(self, transform: Transform, beta: float) -> float:
        """Mean true KL of the tilts at β. Nats."""
        return float(self.weights @ self.kls(transform, beta))

    def kls(self, transform: Transform, beta: float) -> Float[np.ndarray, "D"]:
        """True KL of each world's tilt. Nats."""
        tilt, weight = self._tilt(transform, beta)
        mass = _row_sums(self.gaps, weight)
        return _row_sums(self.gaps, weight * tilt) / mass - np.log(mass)

    def beta_for_kl(self, transform: Transform, kl: float) -> float:
        """The one β of all worlds at which their mean KL is `kl`.

        Raises:
            ValueError: a KL that K rollouts cannot express.
        """
        largest = self.largest_kl(transform)
        if not 0 < kl < 0.999 * largest:
            raise ValueError(
                f"a KL of {kl} nats is out of reach with k = {self.k} calibration rollouts (at "
                f"most about {largest:.2f}); use more rollouts or a smaller KL above 0."
            )

        def excess(log_beta: float) -> float:
            return self.kl(transform, float(np.exp(log_beta))) - kl

        low = high = float(np.log(np.ptp(self.training_rewards(transform))))
        while excess(low) < 0:
            low -= 2.0
        while excess(high) > 0:
            high += 2.0
        return float(np.exp(brentq(excess, low, high, xtol=1e-12)))  # pyright: ignore

    def win_rates(
        self,
        transform: Transform,
        beta: float,
        procedure: RankProcedure,
        loss: Callable[[np.ndarray], np.ndarray],
        nodes: int,
    ) -> Float[np.ndarray, "D"]:
        """1 − ∫ loss dG(F) of each world's tilt.

        F is linear on a piece and G a polynomial of degree N, so Gauss's rule with N nodes is exact
        where the loss is one, too.

        Args:
            transform: Φ.
            beta: β.
            procedure: G.
            loss: the chance of losing with an answer of quantile u.
            nodes: Gauss nodes per piece.
        """
        place, share = np.polynomial.legendre.leggauss(nodes)
        place, share, (_, weight) = (place + 1) / 2, share / 2, self._tilt(transform, beta)
        rates = np.empty(len(self.weights))
        step = max(1, AT_ONCE // (self.gaps.shape[1] * nodes))
        for start in range(0, len(rates), step):
            rows = slice(start, start + step)
            mass = self.gaps[rows] * (weight if len(weight) == 1 else weight[rows])
            mass /= mass.sum(axis=1, keepdims=True)
            below = np.cumsum(mass, axis=1) - mass
            u = self.edges[rows, :-1, None] + self.gaps[rows, :, None] * place
            cdf = np.clip(below[..., None] + mass[..., None] * place, 0.0, 1.0)
            lost = (loss(u) * procedure.rank_density(cdf)) @ share
            rates[rows] = 1 - np.sum(lost * mass, axis=1)
        return rates

    def densities(self, transform: Transform, beta: float) -> Float[np.ndarray, "D M"]:
        """f of each world's tilt, on each piece."""
        _, weight = self._tilt(transform, beta)
        return weight / _row_sums(self.gaps, weight)[:, None]

    def _tilt(self, transform: Transform, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Φ̄/β up to a constant, and its exponential."""
        phi = self.training_rewards(transform) / beta
        tilt = phi - phi.max(axis=1, keepdims=True)
        return tilt, np.exp(tilt)


def _row_sums(gaps: np.ndarray, values: np.ndarray) -> np.ndarray:
    return gaps @ values[0] if len(values) == 1 else np.einsum("dm,dm->d", gaps, values)


def _worlds(quantiles: Float[np.ndarray, "D K"]) -> Worlds:
    draws, k = quantiles.shape
    ends = np.broadcast_to([0.0, 1.0], (draws, 2))
    edges = np.concatenate([ends[:, :1], quantiles, ends[:, 1:]], axis=1)
    ranks = np.arange(k + 1)[None]
    return Worlds(k, np.full(draws, 1 / draws), edges, ranks, np.zeros_like(ranks))


def _pass_fail_worlds(k: int, fail_rate: float) -> Worlds:
    passed = np.arange(k + 1)
    below = np.stack([np.zeros_like(passed), k - passed], axis=1)
    tied = np.stack([k - passed, passed], axis=1)
    edges = np.broadcast_to([0.0, fail_rate, 1.0], (k + 1, 3))
    return Worlds(k, stats.binom.pmf(passed, k, 1 - fail_rate), edges, below, tied)


def _tied_worlds(
    quantiles: Float[np.ndarray, "D K"], ties: Ties, breaks: Sequence[float]
) -> Worlds:
    """Pieces end at rollouts and at the breaks; inside a tie they all look alike."""
    draws, k = quantiles.shape
    cuts = np.broadcast_to([0.0, *breaks, 1.0], (draws, len(breaks) + 2))
    edges = np.concatenate([cuts, quantiles], axis=1)
    order = np.argsort(edges, axis=1, kind="stable")
    edges = np.take_along_axis(edges, order, axis=1)
    below = np.cumsum(order >= cuts.shape[1], axis=1)[:, :-1]
    if not ties:
        return Worlds(k, np.full(draws, 1 / draws), edges, below, np.zeros_like(below))
    tie = ties.index((edges[:, 1:] + edges[:, :-1]) / 2)
    starts, ends = (
        np.stack([(quantiles < x).sum(axis=1) for x in ends], axis=1)
        for ends in (ties.starts, ties.ends)
    )
    tied = np.where(tie >= 0, np.take_along_axis(ends - starts, tie, axis=1), 0)
    below = np.where(tie >= 0, np.take_along_axis(starts, tie, axis=1), below)
    return Worlds(k, np.full(draws, 1 / draws), edges, below, tied)
