"""Win rates after decoding, from samples: unbiased, by one sort per prompt.

Averaging over *all* size-N subsets of the samples of both sides is unbiased and has the least
variance, and one set of m samples serves every N ≤ m. Resampling with replacement ("bootstrap
best@N") draws the same response twice and is biased low.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import sparse

from infalign.evaluation.estimates import refuse_unscored
from infalign.quantile.procedures import BestOfN, RankProcedure
from infalign.quantile.ranks import count_ranks
from infalign.quantile.subsets import average_over_ties, subset_weights, tie_bounds
from infalign.quantile.win_rate import frontier

__all__ = [
    "compare",
    "fraction_of_limit",
    "picks",
    "rewards_every_n",
    "win_rate_samples",
    "win_rates_every_n",
]

CHUNK = 1 << 11
"""Prompts at a time, so that what lies between stays in the processor's cache."""


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
    procedure picks by the rewards all the same, ties at random, and its picks are judged by those.

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
    refuse_unscored(sides)
    policy_picks = picks(policy_rewards, procedure)
    reference_picks = picks(reference_rewards, reference_procedure or procedure)
    if policy_judged is None or reference_judged is None:
        policy_judged, reference_judged = policy_rewards, reference_rewards
    return compare(policy_judged, policy_picks, reference_judged, reference_picks)


def win_rates_every_n(
    policy_rewards: Float[np.ndarray, "P m"],
    reference_rewards: Float[np.ndarray, "P M"],
    family: Callable[[int], RankProcedure] = BestOfN,
    ns: Sequence[int] | None = None,
) -> Float[np.ndarray, "P n"]:
    """`win_rate_samples` of a whole family at once: every N from one sort of the same samples.

    What N does to Ŵ = Σ_i w_i·(S(below_i) + S(below_i + tied_i))/2 is a table over the rank i of a
    policy sample among its own and the number of reference samples below it (S: cumulative weights
    of the reference's ranks). So samples are ranked once, and a win rate for each N is a sum of m
    rows of that table. A million prompts with 64 samples on both sides, every N ≤ 64, take seconds.

    Args:
        policy_rewards: m samples of the policy to each prompt; never those trained on.
        reference_rewards: M fresh samples of the reference; never those that calibrated.
        family: n → procedure, for both sides.
        ns: Numbers of candidates, columns of the result; where None 1 … min(m, M).

    Raises:
        ValueError: A reward is not finite, shapes disagree, or an N exceeds the samples.

    Example:
        >>> policy, reference = np.array([[1.0, 3.0]]), np.array([[0.0, 2.0]])
        >>> win_rates_every_n(policy, reference).tolist()
        [[0.75, 1.0]]
    """
    refuse_unscored({"policy_rewards": policy_rewards, "reference_rewards": reference_rewards})
    m, others = policy_rewards.shape[1], reference_rewards.shape[1]
    ns = range(1, min(m, others) + 1) if ns is None else ns
    table = np.stack([_won_by_rank(m, others, family(n)) for n in ns], axis=-1)
    rates = np.empty((len(policy_rewards), len(ns)))
    for first in range(0, len(rates), CHUNK):
        part = slice(first, first + CHUNK)
        rates[part] = _sums_of_rows(policy_rewards[part], reference_rewards[part], table)
    return rates


def rewards_every_n(
    rewards: Float[np.ndarray, "P m"],
    family: Callable[[int], RankProcedure] = BestOfN,
    ns: Sequence[int] | None = None,
) -> Float[np.ndarray, "P n"]:
    """Unbiased mean reward of what is decoded, for every N: best@N, and pass@N where r is 0 or 1.

    R̂ = Σ_i w_i·r_(i): each of all size-N subsets of the m samples counts once.

    Args:
        rewards: m samples to each prompt, in the reward's own unit.
        family: n → procedure.
        ns: Numbers of candidates, columns of the result; where None 1 … m.

    Raises:
        ValueError: A reward is not finite, or an N exceeds the samples.

    Reference: pass@k, "Evaluating Large Language Models Trained on Code" (arXiv:2107.03374).

    Example:
        >>> rewards_every_n(np.array([[0.0, 1.0, 0.0]])).round(3).tolist()
        [[0.333, 0.667, 1.0]]
    """
    refuse_unscored({"rewards": rewards})
    m = rewards.shape[1]
    ns = range(1, m + 1) if ns is None else ns
    weights = [subset_weights(m, family(n).rank_probabilities) for n in ns]
    return np.sort(rewards, axis=1) @ np.stack(weights, axis=-1)


def _won_by_rank(m: int, others: int, procedure: RankProcedure) -> Float[np.ndarray, "m M1"]:
    """What the i-th smallest of m policy samples adds to Ŵ with c reference samples below it."""
    ours = subset_weights(m, procedure.rank_probabilities)
    theirs = subset_weights(others, procedure.rank_probabilities)
    return np.outer(ours, np.concatenate([[0.0], np.cumsum(theirs)]))


def _sums_of_rows(
    policy_rewards: Float[np.ndarray, "P m"],
    reference_rewards: Float[np.ndarray, "P M"],
    table: Float[np.ndarray, "m M1 n"],
) -> Float[np.ndarray, "P n"]:
    """Σ_i table[i, below_i], a tie with the reference half of it on either side."""
    prompts, m = policy_rewards.shape
    # Tied samples of one side meet the same opponents, so their order does not matter.
    reference = np.sort(reference_rewards, axis=1)
    below, ties = count_ranks(reference, np.arange(prompts), np.sort(policy_rewards, axis=1))
    places = np.arange(m) * table.shape[1] + below
    if ties.any():
        places = np.concatenate([places, places + ties], axis=1)
    each = places.shape[1]
    # Rows of a sparse matrix that repeat a column add up, which is what is wanted.
    ends = np.arange(prompts + 1) * each
    share = np.full(places.size, m / each)
    chosen = sparse.csr_matrix((share, places.ravel(), ends), (prompts, m * table.shape[1]))
    return chosen @ table.reshape(-1, table.shape[2])


def picks(rewards: Float[np.ndarray, "P m"], procedure: RankProcedure) -> Float[np.ndarray, "P m"]:
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


def fraction_of_limit(
    win_rate: float,
    kl: float,
    procedure: RankProcedure,
    reference_procedure: RankProcedure | None = None,
) -> float:
    """(W − W₀)/(W*(KL) − W₀): how much of what is possible at this KL was reached.

    W* is the frontier of the optimal transform and W₀ the win rate of not moving at all, ½ when
    both sides are decoded alike. The reference's quantiles are taken as continuous. An estimate can
    exceed 1 by its own error.

    Args:
        win_rate: Measured after decoding both sides. In [0, 1].
        kl: Measured on the same policy. Nats, > 0.
        procedure: Decodes the policy.
        reference_procedure: Decodes the reference; the same if None.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> round(fraction_of_limit(0.8, 0.5, BestOfN(4)), 3)
        0.804
    """
    if not kl > 0:
        raise ValueError(
            f"kl is {kl}; at no divergence nothing can be gained, so there is no limit to take a "
            "fraction of. Measure a policy that has moved."
        )
    nowhere, limit = frontier(
        procedure, [0.0, kl], "optimal", reference_procedure=reference_procedure
    )
    return float((win_rate - nowhere) / (limit - nowhere))
