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
    """Histograms on [0,1] before and after calibration, and the spread of every prompt.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rewards = rng.normal(size=(20, 1)) * 3 + rng.normal(size=(20, 50))
        >>> quantiles = (rewards.argsort(1).argsort(1) + 0.5) / 50
        >>> check = CalibrationCheck.from_rewards(rewards, quantiles)
        >>> check.prompt_ks_before > 0.5, round(check.prompt_ks_after, 4)
        (True, 0.01)
    """

    edges: tuple[float, ...]
    """Bin edges on [0, 1]; one more than there are counts."""
    before: tuple[int, ...]
    """Rollouts per bin, rewards on one global scale."""
    after: tuple[int, ...]
    """Rollouts per bin, calibrated rewards."""
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
        """Edges and counts fit together."""
        require_same_length(self, "before", "after")
        if len(self.edges) != len(self.before) + 1:
            raise ValueError(
                f"CalibrationCheck has {len(self.edges)} edges for {len(self.before)} counts; "
                "a histogram needs one edge more than it has counts."
            )

    @classmethod
    def from_rewards(
        cls,
        rewards: Float[np.ndarray, "P K"],
        quantiles: Float[np.ndarray, "P K"],
        prompts: Sequence[str] | None = None,
        *,
        bins: int = 20,
        note: str = "",
    ) -> "CalibrationCheck":
        """The check of reference rollouts: P prompts with K rewards and their quantiles.

        Args:
            rewards: raw rewards, in their own unit.
            quantiles: the same rollouts calibrated by *other* rollouts of the same prompt (left
                one out, or fresh); quantiles among themselves are uniform by construction.
            prompts: P ids or texts that name the prompts.
            bins: bars of the histograms.
            note: said under the figure.

        Raises:
            ValueError: where the shapes differ or are not P × K.
        """
        rewards, quantiles = np.asarray(rewards, float), np.asarray(quantiles, float)
        if rewards.ndim != 2 or rewards.shape != quantiles.shape or rewards.size == 0:
            raise ValueError(
                f"rewards have shape {rewards.shape}, quantiles {quantiles.shape}; both must be "
                "P × K, the same rollouts before and after calibration."
            )
        scale = float(rewards.std()) or 1.0
        before = stats.norm.cdf((rewards - rewards.mean()) / scale)
        names = [f"prompt {i + 1}" for i in range(len(rewards))] if prompts is None else prompts
        points = zip(_points(rewards), _points(quantiles), names, strict=True)
        edges = np.linspace(0, 1, bins + 1)
        return cls(
            edges=tuple(edges),
            before=tuple(np.histogram(before, edges)[0]),
            after=tuple(np.histogram(quantiles, edges)[0]),
            ks_before=_ks(before.ravel()),
            ks_after=_ks(quantiles.ravel()),
            prompt_ks_before=float(np.mean([_ks(row) for row in before])),
            prompt_ks_after=float(np.mean([_ks(row) for row in quantiles])),
            k=rewards.shape[1],
            spread=tuple(PromptSpread(str(name), r, q) for r, q, name in points),
            note=note,
        )


def _ks(values: np.ndarray) -> float:
    """Largest distance between the empirical CDF and that of the uniform law."""
    ordered, steps = np.sort(values), np.arange(len(values) + 1) / len(values)
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))


def _points(values: np.ndarray) -> list[tuple[float, float, float]]:
    return [tuple(row) for row in np.quantile(values, _BANDS, axis=1).T]
