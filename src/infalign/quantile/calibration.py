"""Calibration: reward → quantile under the reference policy.

The quantile u = C(x, y) of a response is the share of the reference policy's responses to the same
prompt that score lower, ties counting half. Under the reference it is uniform on [0,1] whatever
the reward's scale, so everything downstream is a function on [0,1].

A calibration *is* the fitted thing: it is made from the rewards of K reference rollouts per prompt.
With finite K it hands out ranks as well, from which a transform forms its posterior mean
(:meth:`infalign.quantile.transforms.Transform.posterior_mean`).
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.ranks import count_ranks, quantiles

__all__ = ["Calibration", "EmpiricalCalibration"]


class Calibration(ABC):
    """Maps rewards to quantiles under the reference policy, prompt by prompt."""

    @abstractmethod
    def __call__(
        self, prompt_ids: Sequence[str], rewards: Float[np.ndarray, "P N"]
    ) -> Float[np.ndarray, "P N"]:
        """Quantiles in [0,1], ties half, of N rewards for each of P prompts."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class EmpiricalCalibration(Calibration):
    """The empirical quantile among K reference rollouts of the same prompt, ties half.

    Right when the rollouts come from the very reference policy (and sampling settings) that
    training is regularised towards. u = (#{rᵢ < r} + ½·#{rᵢ = r}) / K.

    Args:
        prompt_ids: P distinct prompt ids.
        reference_rewards: rewards of K ≥ 2 reference rollouts per prompt; finite, any unit.

    Raises:
        ValueError: on a NaN or infinite reward (naming the prompt), K < 2, repeated ids or a
            number of ids that is not P.

    Reference:
        InfAlign: Inference-aware language model alignment (arXiv:2412.19792), §4.

    Example:
        >>> calibration = EmpiricalCalibration(("a",), np.array([[1.0, 2.0, 2.0, 5.0]]))
        >>> calibration(["a"], np.array([[0.0, 2.0, 3.0]])).tolist()
        [[0.0, 0.5, 0.75]]
        >>> calibration.leave_one_out().round(3).tolist()
        [[0.0, 0.5, 0.5, 1.0]]
    """

    prompt_ids: tuple[str, ...]
    """Ids of the P prompts, in the order of the rows."""
    reference_rewards: Float[np.ndarray, "P K"]
    """Rewards of the reference rollouts."""

    def __post_init__(self) -> None:
        ids, rewards = self.prompt_ids, self.reference_rewards
        if rewards.ndim != 2 or len(ids) != rewards.shape[0]:
            raise ValueError(
                f"{len(ids)} prompt ids came with reference rewards of shape {rewards.shape}; one "
                "row of K rewards per prompt is needed."
            )
        if self.k < 2:
            raise ValueError(
                f"K = {self.k} reference rollouts per prompt; at least 2 are needed, because a "
                "rollout is calibrated against the others. Collect more rollouts."
            )
        if len(set(ids)) != len(ids):
            repeated = next(i for i in ids if ids.count(i) > 1)
            raise ValueError(f"Prompt id {repeated!r} is repeated; ids must be distinct.")
        _refuse_non_finite(ids, rewards, "reference reward")

    @property
    def k(self) -> int:
        """K, the number of reference rollouts per prompt."""
        return self.reference_rewards.shape[1]

    def __call__(
        self, prompt_ids: Sequence[str], rewards: Float[np.ndarray, "P N"]
    ) -> Float[np.ndarray, "P N"]:
        below, ties = self.ranks(prompt_ids, rewards)
        return quantiles(below, ties, self.k)

    def ranks(
        self, prompt_ids: Sequence[str], rewards: Float[np.ndarray, "P N"]
    ) -> tuple[Int[np.ndarray, "P N"], Int[np.ndarray, "P N"]]:
        """How many reference rewards lie below each reward, and how many equal it.

        Raises:
            ValueError: on a prompt without reference rollouts, or a reward that is not finite.
        """
        rows = self._rows(prompt_ids)
        if len(rows) != len(rewards):
            raise ValueError(f"{len(rows)} prompt ids came with {len(rewards)} rows of rewards.")
        _refuse_non_finite(prompt_ids, rewards, "reward")
        return count_ranks(self._sorted, np.asarray(rows, dtype=np.int64), rewards)

    def leave_one_out(self) -> Float[np.ndarray, "P K"]:
        """Quantile of each reference rollout among the K − 1 *others* of its prompt.

        Counting a rollout among its own judges would pull every quantile towards ½, by (½ − u)/K.
        """
        below, ties = self.leave_one_out_ranks()
        return quantiles(below, ties, self.k - 1)

    def leave_one_out_ranks(self) -> tuple[Int[np.ndarray, "P K"], Int[np.ndarray, "P K"]]:
        """Ranks of each reference rollout among the K − 1 others: use with k = K − 1."""
        below, ties = self.ranks(self.prompt_ids, self.reference_rewards)
        return below, ties - 1

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.sort(self.reference_rewards, axis=1)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {prompt_id: row for row, prompt_id in enumerate(self.prompt_ids)}

    def _rows(self, prompt_ids: Sequence[str]) -> list[int]:
        unseen = [i for i in prompt_ids if i not in self._row_of]
        if unseen:
            raise ValueError(
                f"{len(unseen)} of {len(prompt_ids)} prompts have no reference rollouts, first "
                f"{unseen[0]!r}; a reward means nothing until it is compared with the reference's "
                "on the same prompt. Collect reference rollouts for them."
            )
        return [self._row_of[i] for i in prompt_ids]


def _refuse_non_finite(ids: Sequence[str], rewards: np.ndarray, what: str) -> None:
    bad = np.argwhere(~np.isfinite(rewards))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{what} {column} of prompt {ids[row]!r} is {rewards[row, column]} ({len(bad)} such "
            "values in all); a quantile needs finite numbers. Check the reward on that response."
        )
