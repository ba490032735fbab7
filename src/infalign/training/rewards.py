"""What training maximises: the reward of a text, calibrated and transformed.

A training reward knows three things. What a *new* response is worth (online training asks);
what the *stored reference rollouts* are worth (offline training asks; each of them is calibrated
leaving itself out, because a rollout ranked among copies of itself is pulled towards ½); and
hence the log-partition log Z(β) of the policy that KL-regularised training converges to, which is
an exact finite sum over those rollouts, not an integral that K samples only approximate.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.protocols import Reward
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.tilting import beta_for_atoms_kl
from infalign.quantile.transforms import Transform

__all__ = ["CalibratedReward", "EnumeratedReward", "RawReward", "Scored", "TrainingReward"]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a training reward says about responses, and how it came to say it."""

    training_rewards: Float[np.ndarray, "P K"]
    """Φ(u): what the solver maximises. Dimensionless."""
    rewards: Float[np.ndarray, "P K"]
    """r: the reward model's own unit."""
    quantiles: Float[np.ndarray, "P K"] | None = None
    """u in [0, 1] under the reference; None where no calibration is known."""

    def rows(self, rows: Sequence[int]) -> "Scored":
        """The same of some of the prompts."""
        quantiles = None if self.quantiles is None else self.quantiles[rows]
        return Scored(self.training_rewards[rows], self.rewards[rows], quantiles)


class TrainingReward(abc.ABC):
    """Training rewards of new responses, of the reference's own, and the tilt they define."""

    @abc.abstractmethod
    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
    ) -> Scored:
        """Scores K new response texts to each of P prompts."""

    @abc.abstractmethod
    def atoms(
        self, prompt_ids: Sequence[str]
    ) -> tuple[Float[np.ndarray, "P C"], Float[np.ndarray, "P C"]]:
        """The reference law as far as it is known: masses (summing to 1) and training rewards.

        For stored rollouts: 1/K each, in the order of the store.
        """

    @final
    def __call__(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
    ) -> Float[np.ndarray, "P K"]:
        """Training rewards alone."""
        return self.score(prompt_ids, prompts, responses).training_rewards

    @final
    def log_partition(self, beta: float, prompt_ids: Sequence[str]) -> Float[np.ndarray, "P"]:
        """log Z(β) = log Σ_c mass_c·exp(Φ_c/β), per prompt. Nats."""
        masses, training_rewards = self.atoms(prompt_ids)
        with np.errstate(divide="ignore"):
            return _log_sum_exp(np.log(masses) + training_rewards / beta)

    @final
    def beta_for_kl(self, kl: float, prompt_ids: Sequence[str]) -> float:
        """The one β at which the exact tilt of the atoms has mean KL `kl` over these prompts.

        Args:
            kl: Mean over prompts, nats per response. Below what the atoms can carry:
                −log mass of the best atom, so log K for K distinct rollouts.
        """
        masses, training_rewards = self.atoms(prompt_ids)
        return float(beta_for_atoms_kl(masses, training_rewards, kl))


@final
@dataclasses.dataclass(frozen=True)
class CalibratedReward(TrainingReward):
    """Reward → quantile among the K reference rollouts → posterior mean of Φ.

    The quantile of a response with r of K reference rewards below it is only known up to
    Beta(r+1, K−r+1); the training reward is the mean of Φ over that law, which matters for the
    steep Φ of large N.

    Reference: InfAlign (arXiv:2412.19792); the finite-K posterior mean is ours.
    """

    reward: Reward
    """Scores texts."""
    calibration: EmpiricalCalibration
    """Fitted to the reference's rollouts under the same reward."""
    transform: Transform
    """Φ."""

    def score(self, prompt_ids, prompts, responses) -> Scored:
        rewards = _rewards_of(self.reward, prompt_ids, prompts, responses)
        below, ties = self.calibration.ranks(prompt_ids, rewards)
        training = self.transform.posterior_mean(below, ties, self.calibration.k)
        return Scored(training, rewards, self.calibration(prompt_ids, rewards))

    def atoms(self, prompt_ids):
        below, ties = self.calibration.leave_one_out_ranks()
        rows = _rows(self.calibration.prompt_ids, prompt_ids)
        k = self.calibration.k
        training = self.transform.posterior_mean(below[rows], ties[rows], k - 1)
        return np.full(training.shape, 1 / k), training


@final
@dataclasses.dataclass(frozen=True)
class RawReward(TrainingReward):
    """Ordinary RLHF: the reward itself, times one scale for all prompts. The baseline."""

    reward: Reward
    """Scores texts."""
    prompt_ids: tuple[str, ...]
    """Whose rollouts `reference_rewards` are."""
    reference_rewards: Float[np.ndarray, "P K"]
    """Rewards of the stored reference rollouts."""
    scale: float = 1.0
    """Multiplies the reward. > 0; only scale/β matters."""
    calibration: Calibration | None = None
    """For watching quantiles while training; training does not see it."""

    def __post_init__(self) -> None:
        if self.reference_rewards.shape[0] != len(self.prompt_ids):
            raise ValueError(
                f"reference_rewards has {self.reference_rewards.shape[0]} rows for "
                f"{len(self.prompt_ids)} prompt ids; give one row per prompt."
            )
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale}; it must be > 0, or worse would be better.")

    def score(self, prompt_ids, prompts, responses) -> Scored:
        rewards = _rewards_of(self.reward, prompt_ids, prompts, responses)
        quantiles = None if self.calibration is None else self.calibration(prompt_ids, rewards)
        return Scored(self.scale * rewards, rewards, quantiles)

    def atoms(self, prompt_ids):
        rewards = self.reference_rewards[_rows(self.prompt_ids, prompt_ids)]
        return np.full(rewards.shape, 1 / rewards.shape[1]), self.scale * rewards


@final
@dataclasses.dataclass(frozen=True)
class EnumeratedReward(TrainingReward):
    """Training rewards of a finite response set, exact: a look-up by prompt and text."""

    prompt_ids: tuple[str, ...]
    """Prompts in the order of the tables."""
    responses: Sequence[Sequence[str]]
    """C distinct response texts to each prompt."""
    masses: Float[np.ndarray, "P C"]
    """Probability of each under the reference; rows sum to 1."""
    rewards: Float[np.ndarray, "P C"]
    """r of each."""
    training_rewards: Float[np.ndarray, "P C"]
    """Φ of each."""

    @classmethod
    def of_transform(cls, prompt_ids, responses, masses, rewards, transform) -> "EnumeratedReward":
        """Exact calibration: Φ averaged over the quantile interval of each atom of the law."""
        low, high = quantile_intervals(masses, rewards)
        training = transform.interval_mean(low, high)
        return cls(tuple(prompt_ids), responses, masses, rewards, training)

    def score(self, prompt_ids, prompts, responses) -> Scored:
        rows = _rows(self.prompt_ids, prompt_ids)
        columns = np.array(
            [
                [self._column(row, text) for text in texts]
                for row, texts in zip(rows, responses, strict=True)
            ]
        )
        low, high = quantile_intervals(self.masses[rows], self.rewards[rows])
        quantiles = np.take_along_axis((low + high) / 2, columns, 1)
        rows = np.asarray(rows)[:, None]
        return Scored(self.training_rewards[rows, columns], self.rewards[rows, columns], quantiles)

    def atoms(self, prompt_ids):
        rows = _rows(self.prompt_ids, prompt_ids)
        return self.masses[rows], self.training_rewards[rows]

    def _column(self, row: int, text: str) -> int:
        try:
            return list(self.responses[row]).index(text)
        except ValueError:
            raise ValueError(
                f"response {text!r} to prompt {self.prompt_ids[row]!r} is not among the "
                f"{len(self.responses[row])} enumerated ones; an enumerated reward knows no other."
            ) from None


def quantile_intervals(
    masses: Float[np.ndarray, "P C"], rewards: Float[np.ndarray, "P C"]
) -> tuple[Float[np.ndarray, "P C"], Float[np.ndarray, "P C"]]:
    """[P(r < r_c), P(r ≤ r_c)] under the masses: the part of [0,1] that atom c stands for.

    Example:
        >>> low, high = quantile_intervals(np.array([[0.5, 0.25, 0.25]]), np.array([[1., 0., 1.]]))
        >>> low.tolist(), high.tolist()
        ([[0.25, 0.0, 0.25]], [[1.0, 0.25, 1.0]])
    """
    below = rewards[:, None, :] < rewards[:, :, None]
    upto = rewards[:, None, :] <= rewards[:, :, None]
    low = (below * masses[:, None, :]).sum(-1)
    high = (upto * masses[:, None, :]).sum(-1)
    return low, np.minimum(high, 1.0)


def _rewards_of(reward, prompt_ids, prompts, responses) -> np.ndarray:
    rewards = np.asarray(reward(prompts, responses), dtype=float)
    expected = (len(responses), len(responses[0]) if responses else 0)
    if rewards.shape != expected:
        raise ValueError(
            f"reward {reward.name!r} returned shape {rewards.shape} for {expected[0]} prompts × "
            f"{expected[1]} responses; it must return one number per response, shape {expected}."
        )
    bad = np.argwhere(~np.isfinite(rewards))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"reward {reward.name!r} is {rewards[row, column]} for response {column} to prompt "
            f"{prompt_ids[row]!r}: {responses[row][column]!r}. A training reward must be finite; "
            "repair the reward function."
        )
    return rewards


def _rows(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    index = {prompt_id: row for row, prompt_id in enumerate(known)}
    missing = [prompt_id for prompt_id in wanted if prompt_id not in index]
    if missing:
        raise ValueError(
            f"no reference rollouts for prompt {missing[0]!r} ({len(missing)} of {len(wanted)} "
            "are unknown); collect and score them first, the training reward is relative to them."
        )
    return [index[prompt_id] for prompt_id in wanted]


def _log_sum_exp(values: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "P"]:
    top = values.max(axis=1)
    return top + np.log(np.exp(values - top[:, None]).sum(axis=1))
