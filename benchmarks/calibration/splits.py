"""Rollouts that calibrate, answers that are judged: two ways to have both from C answers.

`rollouts`: the reference *is* the C answers, each of equal mass; K rollouts are drawn from it, as
from a language model, and calibrate; win rates are exact sums over the C. `disjoint`: some answers
calibrate, others are judged, and none does both; the reference is uniform over the judged ones,
which the calibrating ones do not know, so that few judged answers are a noise of their own.
"""

import dataclasses
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.procedures import RankProcedure
from infalign.quantile.ranks import count_ranks, quantiles
from infalign.quantile.tilting import atoms_kl, beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Transform
from infalign.quantile.win_rate import atomic_win_rate
from infalign.training.rewards import quantile_intervals

__all__ = ["Split", "Won"]


@dataclasses.dataclass(frozen=True)
class Won:
    """A tilt of the judged answers at a mean KL."""

    per_prompt: Float[np.ndarray, "P"]
    """Win rate after decoding, mean over repeats."""
    kl: Float[np.ndarray, "P"]
    """KL of each prompt, mean over repeats. Nats."""


@dataclasses.dataclass(frozen=True)
class Split:
    """P prompts, each split anew in every repeat; S = repeats × P rows, a repeat after another."""

    calibrating: Float[np.ndarray, "S K"]
    """Scores of the answers that calibrate."""
    judged: Float[np.ndarray, "S B"]
    """Scores of the answers that are judged."""
    prompts: int
    """P."""

    @classmethod
    def rollouts(
        cls, scores: Float[np.ndarray, "P C"], k: int, repeats: int, rng: np.random.Generator
    ) -> Self:
        """K calibrating draws from all answers; all answers are judged."""
        judged = np.tile(scores, (repeats, 1))
        columns = rng.integers(scores.shape[1], size=(len(judged), k))
        return cls(np.take_along_axis(judged, columns, 1), judged, len(scores))

    @classmethod
    def disjoint(
        cls, scores: Float[np.ndarray, "P C"], judged: int, repeats: int, rng: np.random.Generator
    ) -> Self:
        """Which answers are judged is drawn for each prompt; all others may calibrate."""
        order = rng.permuted(np.tile(scores, (repeats, 1)), axis=1)
        return cls(order[:, judged:], order[:, :judged], len(scores))

    def ranks(self, k: int) -> tuple[Int[np.ndarray, "S B"], Int[np.ndarray, "S B"]]:
        """Of the judged answers among the first `k` calibrating ones: below, tied."""
        known = np.sort(self.calibrating[:, :k], axis=1)
        return count_ranks(known, np.arange(len(known)), self.judged)

    def plain(self, transform: Transform, k: int) -> Float[np.ndarray, "S B"]:
        """Φ(û): the empirical quantile as if it were the true one."""
        return transform(quantiles(*self.ranks(k), k))

    def posterior(self, transform: Transform, k: int) -> Float[np.ndarray, "S B"]:
        """E[Φ(u)] given the rank."""
        return transform.posterior_mean(*self.ranks(k), k)

    def ideal(self, transform: Transform) -> Float[np.ndarray, "S B"]:
        """Φ averaged over what each judged answer is of [0,1]: the reference is known."""
        return transform.interval_mean(*quantile_intervals(self.uniform, self.judged))

    def pooled(self, k: int) -> Float[np.ndarray, "S B"]:
        """Quantile among the calibrating answers to *all* prompts: a global calibration."""
        repeats = len(self.judged) // self.prompts
        pools = np.sort(self.calibrating[:, :k].reshape(repeats, -1), axis=1)
        rows = np.repeat(np.arange(repeats), self.prompts)
        return quantiles(*count_ranks(pools, rows, self.judged), pools.shape[1])

    def standardised(self, k: int) -> Float[np.ndarray, "S B"]:
        """(r − mean)/sd by the prompt's own calibrating answers."""
        known = self.calibrating[:, :k]
        spread = np.maximum(known.std(1, keepdims=True, ddof=1), 1e-6)
        return (self.judged - known.mean(1, keepdims=True)) / spread

    def won(
        self, training: Float[np.ndarray, "S B"], procedure: RankProcedure, kl: float
    ) -> Won | None:
        """The tilt by training rewards whose mean KL is `kl`; None where there is none."""
        try:
            beta = beta_for_atoms_kl(self.uniform, training, kl)
        except ValueError:  # so few distinct training rewards carry no such KL
            return None
        law = tilt_atoms(self.uniform, training, beta)
        rates = atomic_win_rate(law, self.uniform, self.judged, procedure)
        return Won(self._over_repeats(rates), self._over_repeats(atoms_kl(self.uniform, law)))

    @property
    def uniform(self) -> Float[np.ndarray, "S B"]:
        """The reference's law over the judged answers."""
        return np.full(self.judged.shape, 1 / self.judged.shape[1])

    def _over_repeats(self, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "P"]:
        return values.reshape(-1, self.prompts).mean(axis=0)
