"""Are rewards uniform once calibrated, and how differently do prompts spread before that?

Before: every reward is put on one global scale (one mean and one standard deviation for all
prompts) and read through the normal law, which is what training on a standardised raw reward
amounts to. After: the quantile of each reward among its own prompt's reference rewards. Under the
reference policy the second is uniform for every prompt; the first is uniform for none.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import stats

from infalign.report.plain import PlainRecord, require_same_length

__all__ = ["CalibrationCheck", "PromptSpread"]

_BANDS = (0.1, 0.5, 0.9)


@final
@dataclasses.dataclass(frozen=True)
class PromptSpread(PlainRecord):
    """Where 80 % of one prompt's reference rollouts lie, before and after calibration."""

    prompt: str
    """The prompt's id or opening words."""
    rewards: tuple[float, float, float]
    """10 %, 50 % and 90 % points of the raw reward, in the reward's own unit."""
    quantiles: tuple[float, float, float]
    """The same points of the calibrated reward: near 0.1, 0.5, 0.9 when calibrated."""


@final
@dataclasses.dataclass(frozen=True)
class CalibrationCheck(PlainRecord):
    """Distribution functions on [0,1] before and after calibration, and every prompt's spread.

    Fill it by :meth:`from_rewards`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rewards = rng.normal(size=(20, 1)) * 3 + rng.normal(size=(20, 50))
        >>> quantiles = (rewards.argsort(1).argsort(1) + 0.5) / 50
        >>> check = CalibrationCheck.from_rewards(rewards, quantiles)
        >>> check.prompt_ks_before > 0.5, round(check.prompt_ks_after, 4)
        (True, 0.01)
    """

    levels: tuple[float, ...]
    """Points of [0, 1], increasing, where the distribution functions are given."""
    before: tuple[tuple[float, float, float], ...]
    """Share of a prompt's rollouts at or below each level, rewards on one global scale: 10 % point
    over prompts, mean, 90 % point."""
    after: tuple[tuple[float, float, float], ...]
    """The same of calibrated rewards: the mean is the level itself when uniform."""
    ks_before: float
    """Kolmogorov–Smirnov distance of all pooled rollouts from uniform, before. In [0, 1]."""
    ks_after: float
    """The same after calibration."""
    prompt_ks_before: float
    """Mean over prompts of each prompt's own distance from uniform, before."""
    prompt_ks_after: float
    """The same after calibration."""
    k: int
    """Rollouts per prompt: a perfectly uniform law still shows about 0.87/√K per prompt."""
    spread: tuple[PromptSpread, ...] = ()
    """One entry per prompt."""
    note: str = ""
    """Which rollouts these are: the reference's own left one out, or fresh ones."""

    def check(self) -> None:
        """One triple per level."""
        require_same_length(self, "levels", "before", "after")

    @classmethod
    def from_rewards(
        cls,
        rewards: Float[np.ndarray, "P K"],
        quantiles: Float[np.ndarray, "P K"],
        prompts: Sequence[str] | None = None,
        *,
        levels: int = 41,
        note: str = "",
    ) -> "CalibrationCheck":
        """The check of reference rollouts: P prompts with K rewards and their quantiles.

        Args:
            rewards: raw rewards, in their own unit.
            quantiles: the same rollouts calibrated by *other* rollouts of the same prompt (left
                one out, or fresh); quantiles among themselves are uniform by construction.
            prompts: P ids or texts that name the prompts.
            levels: points of [0, 1] at which the distribution functions are kept.
            note: said under the figure.

        Raises:
            ValueError: where the shapes differ or are not P × K.
        """
        rewards, quantiles = _same_rollouts(rewards, quantiles)
        scale = float(rewards.std()) or 1.0
        before = stats.norm.cdf((rewards - rewards.mean()) / scale)
        names = [f"prompt {i + 1}" for i in range(len(rewards))] if prompts is None else prompts
        points = zip(_points(rewards), _points(quantiles), names, strict=True)
        grid = np.linspace(0, 1, levels)
        return cls(
            levels=tuple(grid),
            before=_distribution(before, grid),
            after=_distribution(quantiles, grid),
            ks_before=_ks(before.ravel()),
            ks_after=_ks(quantiles.ravel()),
            prompt_ks_before=float(np.mean([_ks(row) for row in before])),
            prompt_ks_after=float(np.mean([_ks(row) for row in quantiles])),
            k=rewards.shape[1],
            spread=tuple(PromptSpread(str(name), r, q) for r, q, name in points),
            note=note,
        )


def _same_rollouts(rewards: np.ndarray, quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rewards, quantiles = np.asarray(rewards, float), np.asarray(quantiles, float)
    if rewards.ndim != 2 or rewards.shape != quantiles.shape or rewards.size == 0:
        raise ValueError(
            f"rewards have shape {rewards.shape}, quantiles {quantiles.shape}; both must be "
            "P × K, the same rollouts before and after calibration."
        )
    return rewards, quantiles


def _ks(values: np.ndarray) -> float:
    """Largest distance between the empirical CDF and that of the uniform law."""
    ordered, steps = np.sort(values), np.arange(len(values) + 1) / len(values)
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))


def _distribution(
    values: Float[np.ndarray, "P K"], grid: np.ndarray
) -> tuple[tuple[float, float, float], ...]:
    """At each level: 10 % point, mean and 90 % point over prompts of the share at or below it."""
    shares = np.mean(values[:, :, None] <= grid, axis=1)
    low, high = np.quantile(shares, (0.1, 0.9), axis=0)
    return tuple(zip(low.tolist(), shares.mean(0).tolist(), high.tolist(), strict=True))


def _points(values: np.ndarray) -> list[tuple[float, float, float]]:
    return [tuple(row) for row in np.quantile(values, _BANDS, axis=1).T]
