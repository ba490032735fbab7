"""Agreement: how far the reward that selects ranks responses as the one that judges.

Within a prompt, quantiles of the two rewards are taken to follow a Gaussian copula. Its one number
is told as Spearman's rank correlation ρ, which people know; r = 2·sin(πρ/6) is the correlation of
the normal scores. Kendall's τ = (2/π)·asin(r) is what samples estimate without bias at any K.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["Agreement", "copula_correlation", "estimate_agreement", "rank_correlation"]


def copula_correlation(rho: float) -> float:
    """r = 2·sin(πρ/6): the Gaussian copula's parameter that has Spearman correlation ρ.

    Raises:
        ValueError: if ρ lies outside [−1,1].

    Example:
        >>> copula_correlation(1.0), copula_correlation(0.0), round(copula_correlation(0.5), 6)
        (1.0, 0.0, 0.517638)
    """
    if not -1 <= rho <= 1:
        raise ValueError(
            f"The agreement ρ is {rho}; it is a rank correlation and lies between −1 (the judge "
            "ranks the other way round) and 1 (the reward that selects is the one that judges)."
        )
    return float(rho) if abs(rho) == 1 else float(2 * np.sin(np.pi * rho / 6))


def rank_correlation(r: float) -> float:
    """ρ = (6/π)·asin(r/2): Spearman's correlation of a Gaussian copula; undoes the above.

    Raises:
        ValueError: if r lies outside [−1,1].

    Example:
        >>> rank_correlation(-1.0), round(rank_correlation(copula_correlation(0.3)), 12)
        (-1.0, 0.3)
    """
    if not -1 <= r <= 1:
        raise ValueError(f"The copula's correlation is {r}; a correlation lies between −1 and 1.")
    return float(r) if abs(r) == 1 else float(6 / np.pi * np.arcsin(r / 2))


@final
@dataclasses.dataclass(frozen=True)
class Agreement:
    """An estimated rank correlation of two rewards within prompts."""

    value: float
    """ρ, Spearman's."""
    se: float
    """Its standard error, over prompts."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    tau: float
    """Kendall's τ_b, the mean over prompts: what ρ is computed from."""
    prompts: int
    """Prompts it rests on."""
    excluded: int
    """Prompts left out because one of the rewards is constant there: they rank nothing."""


def estimate_agreement(
    proxy: Float[np.ndarray, "P K"], gold: Float[np.ndarray, "P K"]
) -> Agreement:
    """ρ of the rewards that select and judge, from K responses to each of P prompts scored by both.

    τ_b of each prompt, averaged; r = sin(πτ/2); ρ = (6/π)·asin(r/2). Comparisons stay within
    prompts: pooled ones would count it as agreement that both rewards find one prompt easier than
    another, which selection cannot use. The interval is Student's for the mean τ over prompts,
    carried over; the standard error is by the delta method.

    Right for independent prompts. Where a reward is coarse τ_b allows for its ties only in part.

    Args:
        proxy: the reward that selects, any unit.
        gold: the reward that judges, of the same responses.

    Raises:
        ValueError: if shapes differ, K < 2, a reward is not finite, or fewer than two prompts have
            different rewards.

    Example:
        >>> proxy = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
        >>> agreement = estimate_agreement(proxy, proxy**3)
        >>> agreement.value, agreement.prompts, agreement.excluded
        (1.0, 2, 1)
    """
    _refuse_scores(proxy, gold)
    varied = (np.ptp(proxy, axis=1) > 0) & (np.ptp(gold, axis=1) > 0)
    prompts, excluded = int(varied.sum()), int((~varied).sum())
    if prompts < 2:
        raise ValueError(
            f"Only {prompts} of {len(varied)} prompts have responses that both rewards tell apart; "
            "an error over prompts needs at least 2. Score more prompts, or by a finer reward."
        )
    taus = np.array([_tau_b(a, b) for a, b in zip(proxy[varied], gold[varied], strict=True)])
    tau, error = float(taus.mean()), float(taus.std(ddof=1) / np.sqrt(prompts))
    margin = error * float(stats.t.ppf(0.975, prompts - 1))
    r = np.sin(np.pi * tau / 2)
    slope = 1.5 * np.cos(np.pi * tau / 2) / np.sqrt(1 - r**2 / 4)
    low, high = (_rho_of_tau(x) for x in (tau - margin, tau + margin))
    return Agreement(_rho_of_tau(tau), float(slope * error), low, high, tau, prompts, excluded)


def _tau_b(a: np.ndarray, b: np.ndarray) -> float:
    """Concordant minus discordant pairs, over those that each reward tells apart (their mean)."""
    first, second = (np.sign(rewards[:, None] - rewards) for rewards in (a, b))
    told_apart = np.sqrt(np.count_nonzero(first) * np.count_nonzero(second))
    return float(np.sum(first * second) / told_apart)


def _rho_of_tau(tau: float) -> float:
    return rank_correlation(float(np.sin(np.pi * np.clip(tau, -1.0, 1.0) / 2)))


def _refuse_scores(proxy: np.ndarray, gold: np.ndarray) -> None:
    if proxy.ndim != 2 or proxy.shape != gold.shape:
        raise ValueError(
            f"Rewards of shapes {proxy.shape} and {gold.shape} came; both are prompts × responses, "
            "two scores of each response."
        )
    if proxy.shape[1] < 2:
        raise ValueError(
            f"K = {proxy.shape[1]} responses per prompt; ranking takes at least 2 of them."
        )
    for what, rewards in (("proxy", proxy), ("gold", gold)):
        bad = np.argwhere(~np.isfinite(rewards))
        if len(bad):
            row, column = map(int, bad[0])
            raise ValueError(
                f"The {what} reward of response {column} to prompt {row} is {rewards[row, column]} "
                f"({len(bad)} such values in all); ranking needs finite numbers. Leave out what "
                "could not be scored, for both rewards."
            )
