"""What a method may learn from: the reference's responses to each prompt, and their rewards."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Transform
from infalign.training.rewards import quantile_intervals

__all__ = ["Store"]


@dataclasses.dataclass(frozen=True)
class Store:
    """The same for every method: C listed responses to each of P prompts.

    Example:
        >>> store = Store(np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]))
        >>> store.quantiles().tolist()
        [[0.25, 0.75]]
    """

    masses: Float[np.ndarray, "P C"]
    """Under the reference as far as training knows it: the law itself, or shares of K rollouts."""
    rewards: Float[np.ndarray, "P C"]
    """r of each, by the reward that is trained on."""
    k: int | None = None
    """Rollouts per prompt behind `masses`; None: the law is known exactly."""

    @classmethod
    def drawn(
        cls,
        law: Float[np.ndarray, "P C"],
        rewards: Float[np.ndarray, "P C"],
        k: int,
        rng: np.random.Generator,
    ) -> Self:
        """K rollouts to each prompt, drawn from the reference's law."""
        return cls(rng.multinomial(k, law) / k, rewards, k)

    def select(self, rows: Sequence[int]) -> "Store":
        """The same of some of the prompts."""
        return dataclasses.replace(self, masses=self.masses[rows], rewards=self.rewards[rows])

    @property
    def counts(self) -> Int[np.ndarray, "P C"]:
        """How often each response is among the K rollouts.

        Raises:
            ValueError: the law is known, nothing was drawn.
        """
        if self.k is None:
            raise ValueError("this store holds the law itself, not rollouts; there are no counts.")
        return np.rint(self.masses * self.k).astype(int)

    def quantiles(self) -> Float[np.ndarray, "P C"]:
        """u of each response, ties half."""
        low, high = quantile_intervals(self.masses, self.rewards)
        return (low + high) / 2

    def training_rewards(self, transform: Transform) -> Float[np.ndarray, "P C"]:
        """Φ of each response as a new one: exact where the law is known, else its posterior mean.

        See :class:`infalign.training.CalibratedReward` and
        :meth:`infalign.training.EnumeratedReward.of_transform`, which say the same of texts.
        """
        if self.k is None:
            return transform.interval_mean(*quantile_intervals(self.masses, self.rewards))
        ids = tuple(map(str, range(len(self.masses))))
        drawn = np.stack([np.repeat(r, n) for r, n in zip(self.rewards, self.counts, strict=True)])
        calibration = EmpiricalCalibration(ids, drawn)
        below, ties = calibration.ranks(ids, self.rewards)
        return transform.posterior_mean(below, ties, self.k)
