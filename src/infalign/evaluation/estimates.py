"""From one number per prompt to an estimate with its error.

Responses to one prompt are alike, so the prompt is the unit of evidence: errors are standard
errors of the mean of per-prompt numbers, and two policies are compared prompt by prompt.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["Estimate", "estimate", "kl_from_divergences", "kl_from_log_probs", "paired_difference"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over prompts and how well it is known."""

    value: float
    """Mean of the per-prompt numbers."""
    se: float
    """Standard error of that mean, clustered by prompt."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end of the confidence interval."""
    n: int
    """Prompts."""
    level: float = 0.95
    """Coverage of the interval."""

    @property
    def is_different_from_zero(self) -> bool:
        """Whether the interval excludes 0; for differences."""
        return self.low > 0 or self.high < 0


def estimate(
    per_prompt: Float[np.ndarray, "P"],
    *,
    level: float = 0.95,
    resamples: int = 0,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """Mean over prompts with its standard error and a confidence interval.

    Args:
        per_prompt: One number per prompt.
        level: Coverage, in (0, 1).
        resamples: 0 for Student's t with P − 1 degrees of freedom; else a percentile bootstrap
            over prompts with this many resamples (a few thousand).
        rng: Required by the bootstrap.

    Raises:
        ValueError: Fewer than two prompts, or a number that is not finite.

    Example:
        >>> estimate(np.array([0.4, 0.6, 0.8])).value.__round__(3)
        0.6
    """
    values = np.asarray(per_prompt, dtype=float)
    refuse_unscored({"per_prompt": values})
    n = len(values)
    if n < 2:
        raise ValueError(
            f"an error bar over prompts needs at least 2 prompts, got {n}; evaluate on more."
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a confidence level lies in (0, 1), such as 0.95.")
    mean, se = float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))
    if resamples == 0:
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * se
        return Estimate(mean, se, mean - half, mean + half, n, level)
    if rng is None:
        raise ValueError("the bootstrap needs rng; pass np.random.default_rng(seed).")
    means = values[rng.integers(n, size=(resamples, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, se, float(low), float(high), n, level)


def paired_difference(
    a: Float[np.ndarray, "P"],
    b: Float[np.ndarray, "P"],
    *,
    level: float = 0.95,
    resamples: int = 0,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """a − b, prompt by prompt: what the prompts have in common cancels.

    Example:
        >>> paired_difference(np.array([0.6, 0.9]), np.array([0.5, 0.8])).value.__round__(3)
        0.1
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"{len(a)} numbers against {len(b)}; a paired difference needs the same prompts in "
            "the same order on both sides."
        )
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return estimate(difference, level=level, resamples=resamples, rng=rng)


def kl_from_log_probs(
    log_prob: Float[np.ndarray, "P m"], reference_log_prob: Float[np.ndarray, "P m"]
) -> Float[np.ndarray, "P"]:
    """k1: the mean of log π(y) − log π_ref(y) over samples y of π. Unbiased. Nats per response."""
    refuse_unscored({"log_prob": log_prob, "reference_log_prob": reference_log_prob})
    return (log_prob - reference_log_prob).mean(axis=1)


def kl_from_divergences(divergences: Float[np.ndarray, "P m"]) -> Float[np.ndarray, "P"]:
    """Rao–Blackwellised: the mean over samples of π of Σ_t KL of the exact next-token laws.

    Unbiased like k1, never negative, and usually far less noisy. Nats per response.
    """
    refuse_unscored({"divergences": divergences})
    return divergences.mean(axis=1)


def refuse_unscored(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError where sides disagree on the prompts or a number is not finite."""
    prompts = {name: len(values) for name, values in arrays.items()}
    if len(set(prompts.values())) > 1:
        raise ValueError(f"the sides disagree on the number of prompts: {prompts}.")
    for name, values in arrays.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise ValueError(
                f"{name}{list(where)} is {values[where]} ({len(bad)} in all); a comparison of it "
                "means nothing. Find out why it was not scored."
            )
