"""Win rate and KL from samples, with errors clustered by prompt.

A number per prompt first, from that prompt's samples; then one estimate over prompts. Responses
to one prompt are alike, so the prompt is the unit of evidence: errors are standard errors of the
mean of per-prompt numbers, and two policies are compared prompt by prompt.

Win rates average over *all* size-N subsets of the samples of both sides, which is unbiased, has
the least variance, costs one sort, and lets one set of m samples serve every N ≤ m. Resampling
with replacement ("bootstrap best@N") draws the same response twice and is biased low.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy import stats

from infalign.quantile.procedures import RankProcedure
from infalign.quantile.subsets import average_over_ties, subset_weights, tie_bounds

__all__ = [
    "Estimate",
    "compare",
    "estimate",
    "fraction_of_limit",
    "kl_from_divergences",
    "kl_from_log_probs",
    "paired_difference",
    "win_rate_samples",
]


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


def win_rate_samples(
    policy_rewards: Float[np.ndarray, "P m"],
    reference_rewards: Float[np.ndarray, "P M"],
    procedure: RankProcedure,
    reference_procedure: RankProcedure | None = None,
    *,
    policy_judged: Float[np.ndarray, "P m"] | None = None,
    reference_judged: Float[np.ndarray, "P M"] | None = None,
) -> Float[np.ndarray, "P"]:
    """Unbiased win rate of the policy against the reference, both decoded, for each prompt.

    Ŵ = Σ_i Σ_j w_i·w′_j·[1{a_i > b_j} + ½·1{a_i = b_j}], where w_i is how often sample i is the
    one decoded from a random size-N subset. With `policy_judged` and `reference_judged` the
    procedure still picks by the rewards, ties at random, and the picks are judged by another
    reward: what a gold judge says of decoding by a proxy.

    Args:
        policy_rewards: m samples of the policy to each prompt; never those trained on.
        reference_rewards: M fresh samples of the reference; never those that calibrated.
        procedure: How the policy is decoded.
        reference_procedure: How the reference is; the same if None.
        policy_judged: The judge's rewards of the same samples.
        reference_judged: Likewise.

    Raises:
        ValueError: A reward is not finite, shapes disagree, or N exceeds the samples.

    Reference: U-statistics; the pass@k estimator of "Evaluating Large Language Models Trained on
    Code" (arXiv:2107.03374) is the case of one side, best-of-N and 0/1 rewards.
    """
    if (policy_judged is None) != (reference_judged is None):
        raise ValueError("a judge must judge both sides: give policy_judged and reference_judged.")
    sides = {"policy_rewards": policy_rewards, "reference_rewards": reference_rewards}
    if policy_judged is not None and reference_judged is not None:
        sides |= {"policy_judged": policy_judged, "reference_judged": reference_judged}
    _validate(sides)
    policy_picks = picks(policy_rewards, procedure)
    reference_picks = picks(reference_rewards, reference_procedure or procedure)
    if policy_judged is None or reference_judged is None:
        policy_judged, reference_judged = policy_rewards, reference_rewards
    return compare(policy_judged, policy_picks, reference_judged, reference_picks)


def picks(
    rewards: Float[np.ndarray, "P m"], procedure: RankProcedure
) -> Float[np.ndarray, "P m"]:
    """Probability that each sample is the one decoded, averaged over all size-N subsets."""
    weights = subset_weights(rewards.shape[1], procedure.rank_probabilities)
    return average_over_ties(rewards, weights)


def compare(
    a: Float[np.ndarray, "P m"],
    a_weights: Float[np.ndarray, "P m"],
    b: Float[np.ndarray, "P M"],
    b_weights: Float[np.ndarray, "P M"],
) -> Float[np.ndarray, "P"]:
    """P(a > b) + ½·P(a = b) for weighted samples, by one sort per prompt.

    Example:
        >>> half = np.array([[0.5, 0.5]])
        >>> compare(np.array([[1.0, 2.0]]), half, np.array([[1.0, 0.0]]), half).tolist()
        [0.875]
    """
    values = np.concatenate([a, b], axis=1)
    order = np.argsort(values, axis=1)
    start, end = tie_bounds(np.take_along_axis(values, order, 1))
    # Only b's mass counts towards the sums, only a's entries are read from them.
    b_mass = np.concatenate([np.zeros_like(a), b_weights], axis=1)
    b_mass = np.take_along_axis(b_mass, order, 1)
    total = np.concatenate([np.zeros((len(a), 1)), np.cumsum(b_mass, axis=1)], axis=1)
    beaten = (np.take_along_axis(total, start, 1) + np.take_along_axis(total, end, 1)) / 2
    a_mass = np.concatenate([a_weights, np.zeros_like(b)], axis=1)
    return (np.take_along_axis(a_mass, order, 1) * beaten).sum(axis=1)


def kl_from_log_probs(
    log_prob: Float[np.ndarray, "P m"], reference_log_prob: Float[np.ndarray, "P m"]
) -> Float[np.ndarray, "P"]:
    """k1: the mean of log π(y) − log π_ref(y) over samples y of π. Unbiased. Nats per response."""
    _validate({"log_prob": log_prob, "reference_log_prob": reference_log_prob})
    return (log_prob - reference_log_prob).mean(axis=1)


def kl_from_divergences(divergences: Float[np.ndarray, "P m"]) -> Float[np.ndarray, "P"]:
    """Rao–Blackwellised: the mean over samples of π of Σ_t KL of the exact next-token laws.

    Unbiased like k1, never negative, and usually far less noisy. Nats per response.
    """
    _validate({"divergences": divergences})
    return divergences.mean(axis=1)


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
    _validate({"per_prompt": values})
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


def fraction_of_limit(win_rate: float, kl: float, procedure: RankProcedure) -> float:
    """(W − ½)/(W*(KL) − ½): how much of what is possible at this KL was reached.

    W* is the frontier of the optimal transform. Estimates can exceed 1 by their own error.

    Args:
        win_rate: Measured after decoding both sides by `procedure`. In [0, 1].
        kl: Measured on the same policy. Nats, > 0.
    """
    if not kl > 0:
        raise ValueError(
            f"kl is {kl}; at no divergence nothing can be gained, so there is no limit to take a "
            "fraction of. Measure a policy that has moved."
        )
    from infalign.quantile.win_rate import frontier

    limit = float(np.ravel(frontier(procedure, [kl]))[0])
    return (win_rate - 0.5) / (limit - 0.5)


def _validate(arrays: dict[str, np.ndarray]) -> None:
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
