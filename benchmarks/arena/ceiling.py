"""The most that any policy on listed responses wins: the limit of a world of atoms.

The limit of continuous rewards holds for quantiles that are spread out; a list of responses, some
tied, allows less (or, after uneven use of KL over prompts, more). Mirror ascent for all prompts at
once: W's slope by a response's mass is its training reward, and π ∝ π_ref·exp(∇W/β) where it ends.
One β serves all prompts, as is best for their mean at a mean KL.
"""

import copy
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline

from benchmarks.arena.measuring import divergences
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.win_rate import atomic_win_rate

__all__ = ["ceiling"]

BETAS = np.geomspace(2.0, 0.003, 30)


def ceiling(
    law: Float[np.ndarray, "P C"],
    rewards: Float[np.ndarray, "P C"],
    procedure: RankProcedure,
    kls: Sequence[float],
) -> Float[np.ndarray, "n"]:
    """Largest mean win rate found at each mean KL; more KL than can be used wins no more.

    Followed from large β to small and joined by dW/dKL = β, which holds along the optimum. Each
    ascent starts from the last law and, since W is not concave for procedures that show the worst,
    from one that leans far to the best responses; a prompt keeps the better. Others may exist.

    Example:
        >>> law, rewards = np.full((1, 4), 0.25), np.arange(4.0)[None]
        >>> from infalign import BestOfN
        >>> float(ceiling(law, rewards, BestOfN(1), [0.5])[0].round(4))
        0.7628
    """
    order = np.argsort(rewards, axis=1, kind="stable")
    sorted_law, sorted_rewards = (np.take_along_axis(a, order, 1) for a in (law, rewards))
    ascent = _Ascent(sorted_law, sorted_rewards, procedure)
    log_ratio = np.zeros_like(sorted_law)
    leaning = 12 * np.cumsum(sorted_law, axis=1)
    found = [(0.0, 0.5, 2 * BETAS[0])]
    for beta in BETAS:
        log_ratio = ascent.better(ascent.climb(log_ratio, beta), ascent.climb(leaning, beta), beta)
        masses = ascent.masses(log_ratio)
        kl = float(divergences(masses, sorted_law).mean())
        if kl > found[-1][0] + 1e-6:
            won = atomic_win_rate(masses, sorted_law, sorted_rewards, procedure).mean()
            found.append((kl, float(won), float(beta)))
        if kl > max(kls):
            break
    reached, won, slope = np.array(found[1:]).T  # W has a root's slope at KL 0: leave it out
    at = np.asarray(kls, dtype=float)
    if at.min() < reached[0]:
        raise ValueError(f"KL {at.min():g} is below {reached[0]:.3g}, the least followed.")
    return CubicHermiteSpline(reached, won, slope)(np.minimum(at, reached[-1]))


class _Ascent:
    """Columns in order of reward."""

    def __init__(self, law: np.ndarray, rewards: np.ndarray, procedure: RankProcedure) -> None:
        self.law, self.rewards, self.procedure = law, rewards, procedure
        self.worth = self._worth()  # of each response against the decoded reference
        self.steps = np.diff(self.worth, axis=1, append=self.worth[:, -1:])  # 0 within ties

    def _worth(self) -> np.ndarray:
        below = self.rewards[:, None, :] < self.rewards[:, :, None]
        upto = self.rewards[:, None, :] <= self.rewards[:, :, None]
        low, high = ((part * self.law[:, None, :]).sum(-1) for part in (below, upto))
        cdf = self.procedure.rank_cdf
        return (cdf(np.clip(low, 0, 1)) + cdf(np.clip(high, 0, 1))) / 2

    def masses(self, log_ratio: np.ndarray) -> np.ndarray:
        weights = self.law * np.exp(log_ratio - log_ratio.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)

    def slope(self, masses: np.ndarray) -> np.ndarray:
        """∂W/∂π_i = −Σ_{j ≥ i} g(F_j)·(h_{j+1} − h_j), up to a constant."""
        cdf = np.clip(np.cumsum(masses, axis=1), 0.0, 1.0)
        falls = self.procedure.rank_density(cdf) * self.steps
        return -np.cumsum(falls[:, ::-1], axis=1)[:, ::-1]

    def value(self, masses: np.ndarray, beta: float) -> np.ndarray:
        """W − β·KL of each prompt; within a tie only the sum of its masses matters to W."""
        cdf = np.clip(np.cumsum(masses, axis=1), 0.0, 1.0)
        won = self.worth[:, -1] - (self.procedure.rank_cdf(cdf) * self.steps).sum(1)
        return won - beta * divergences(masses, self.law)

    def better(self, one: np.ndarray, other: np.ndarray, beta: float) -> np.ndarray:
        """Of two laws, at each prompt the one with more W − β·KL."""
        worth, rival = (self.value(self.masses(log_ratio), beta) for log_ratio in (one, other))
        return np.where((rival > worth)[:, None], other, one)

    def of(self, rows: np.ndarray) -> "_Ascent":
        """The same for some of the prompts."""
        part = copy.copy(self)
        part.law, part.rewards = self.law[rows], self.rewards[rows]
        part.worth, part.steps = self.worth[rows], self.steps[rows]
        return part

    def climb(self, log_ratio: np.ndarray, beta: float, steps: int = 200) -> np.ndarray:
        """Damped steps towards the tilt by W's slope, halved where a prompt overshoots.

        A prompt that hardly moves any more has arrived.
        """
        arrived, rows, part = log_ratio.copy(), np.arange(len(log_ratio)), self
        damping = np.full((len(log_ratio), 1), 0.5)
        masses = self.masses(log_ratio)
        value = self.value(masses, beta)
        for _ in range(steps):
            aim = part.slope(masses) / beta
            aim -= aim.max(1, keepdims=True)
            tried = (1 - damping) * log_ratio + damping * aim
            there = part.masses(tried)
            worth = part.value(there, beta)
            better = (worth >= value)[:, None]
            moving = np.abs(there - masses).sum(1) >= 1e-5
            log_ratio, masses = np.where(better, tried, log_ratio), np.where(better, there, masses)
            value = np.where(better[:, 0], worth, value)
            damping = np.where(better, np.minimum(damping * 1.2, 1.0), damping / 2)
            arrived[rows] = log_ratio
            if not moving.any():
                break
            if moving.mean() < 0.8:
                log_ratio, masses, value = log_ratio[moving], masses[moving], value[moving]
                rows, damping = rows[moving], damping[moving]
                part = self.of(rows)
        return arrived
