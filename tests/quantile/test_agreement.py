"""Laws of agreement: it is the correlation within prompts, and nothing else."""

import numpy as np
import pytest
from scipy import stats

from infalign.quantile.agreement import (
    copula_correlation,
    estimate_agreement,
    rank_correlation,
)


def scored_twice(rho, prompts, k, seed, spread=0.0):
    """Two rewards of Gaussian copula ρ within prompts, warped; `spread`: shared ease of prompts."""
    rng = np.random.default_rng(seed)
    r = copula_correlation(rho)
    z = rng.normal(size=(2, prompts, k))
    proxy, gold = z[0], r * z[0] + np.sqrt(1 - r**2) * z[1]
    ease = spread * rng.normal(size=(prompts, 1))
    return np.exp(proxy + ease), (gold + ease) ** 3


@pytest.mark.parametrize("rho", [-0.999, -0.4, 0.0, 0.2, 0.7, 1.0])
def test_the_copula_has_the_rank_correlation_it_is_named_by(rho):
    """Within 4.5 standard errors (at most 1/√10⁵), six times: false alarm under 1e-4."""
    assert abs(rank_correlation(copula_correlation(rho)) - rho) < 1e-12
    proxy, gold = scored_twice(rho, 1, 100_000, seed=1)
    measured = stats.spearmanr(proxy[0], gold[0]).statistic
    assert abs(measured - rho) < 4.5 / np.sqrt(1e5)
    if 0 < abs(rho) < 0.99:
        assert abs(copula_correlation(rho) - rho) > 1e-3  # r is not ρ


@pytest.mark.parametrize("k", [2, 5, 30])
@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.6, 0.95])
def test_it_recovers_the_correlation_whatever_the_prompts_ease(rho, k):
    """Within 4.5 standard errors, 12 times: false alarm under 1e-4; seed fixed."""
    found = estimate_agreement(*scored_twice(rho, 2000 // k + 50, k, seed=2, spread=3.0))
    assert abs(found.value - rho) < 4.5 * found.se
    assert found.low < found.value < found.high
    assert np.isclose((found.high - found.low) / 2, 1.98 * found.se, rtol=0.15)


@pytest.mark.parametrize(("rho", "k"), [(0.6, 4), (0.0, 2), (0.9, 16)])
def test_its_interval_holds_the_truth_95_times_in_100(rho, k):
    """Of 400 intervals 380 ± 4.4 hold it; within 5 of these errors: false alarm under 1e-5."""
    estimates = [estimate_agreement(*scored_twice(rho, 40, k, seed)) for seed in range(400)]
    held = sum(found.low <= rho <= found.high for found in estimates)
    assert abs(held - 380) < 22
    spread = np.std([found.value for found in estimates])
    assert np.isclose(np.mean([found.se for found in estimates]), spread, rtol=0.2)


def test_pooled_over_prompts_it_would_be_fooled():
    """The negative control: prompts that both rewards find easy look like agreement."""
    proxy, gold = scored_twice(0.0, 200, 10, seed=3, spread=2.0)
    pooled = stats.spearmanr(proxy.ravel(), gold.ravel()).statistic
    found = estimate_agreement(proxy, gold)
    assert abs(found.value) < 4.5 * found.se
    assert pooled > 0.5


def test_constant_prompts_are_left_out_and_counted():
    proxy, gold = scored_twice(0.5, 50, 6, seed=4)
    alone = estimate_agreement(proxy, gold)
    flat = np.ones((3, 6))
    both = estimate_agreement(np.vstack([proxy, flat, gold[:3]]), np.vstack([gold, gold[:3], flat]))
    assert (both.prompts, both.excluded) == (50, 6)
    assert both.value == alone.value


def test_ties_count_as_neither():
    """τ_b of (1,1,2) and (1,2,3): two concordant pairs over √(2·3)."""
    row = np.array([[1.0, 1.0, 2.0]] * 2), np.array([[1.0, 2.0, 3.0]] * 2)
    assert np.isclose(estimate_agreement(*row).tau, 2 / np.sqrt(6))
    proxy, gold = (np.round(rewards) for rewards in scored_twice(0.5, 20, 12, seed=5))
    slow = [stats.kendalltau(a, b).statistic for a, b in zip(proxy, gold, strict=True)]
    assert np.isclose(estimate_agreement(proxy, gold).tau, np.mean(slow))


def test_bad_scores_are_refused():
    good = np.arange(12.0).reshape(3, 4)
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(3, 3\)"):
        estimate_agreement(good, good[:, :3])
    with pytest.raises(ValueError, match="K = 1"):
        estimate_agreement(good[:, :1], good[:, :1])
    with pytest.raises(ValueError, match="Only 1 of 1"):
        estimate_agreement(good[:1], good[:1])
    bad = good.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match="gold reward of response 2 to prompt 1 is nan"):
        estimate_agreement(good, bad)
    for rho in (-1.01, 1.01, float("nan")):
        with pytest.raises(ValueError, match="agreement ρ"):
            copula_correlation(rho)
        with pytest.raises(ValueError, match="between −1 and 1"):
            rank_correlation(rho)
