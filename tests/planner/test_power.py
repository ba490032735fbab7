"""The exact variance of the all-subsets estimate, and prompts planned from it.

Simulated variances are compared by their own Monte-Carlo error: |z| < 5 raises a false alarm once
in 1.7 million comparisons; seeds are fixed.
"""

import dataclasses
import math

import numpy as np
import pytest

from infalign import (
    BestOfN,
    Log,
    OrderStatistic,
    TiltedPolicy,
    WorstOfN,
    frontier,
    median_of,
    optimal_transform,
    win_rate,
)
from infalign.evaluation import win_rate_samples
from infalign.planner import (
    components,
    detectable,
    difference_components,
    naive_variance,
    power,
    prompts_needed,
)
from infalign.planner.target import least_kl
from infalign.planner.variance import _edges, _refuse_lost_digits, _Side
from infalign.quantile.procedures import Identity
from infalign.quantile.transforms import Identity as IdentityTransform

CASES = [
    (Identity(), None, 3, 5),
    (BestOfN(4), None, 4, 4),
    (BestOfN(4), None, 12, 6),
    (WorstOfN(3), BestOfN(2), 6, 4),
    (median_of(5), None, 7, 9),
    (OrderStatistic((0.2, 0.3, 0.5)), Identity(), 5, 2),
]


FIRST, SECOND = TiltedPolicy(Log(), 0.5), TiltedPolicy(IdentityTransform(), 0.5)
"""With inverses that are quick to sample from."""


def z_of_variance(samples, variance):
    found = samples.var()
    kurtosis = ((samples - samples.mean()) ** 4).mean() / found**2
    return (found - variance) / (found * math.sqrt((kurtosis - 1) / len(samples)))


@pytest.mark.parametrize(("procedure", "reference", "m", "M"), CASES)
def test_the_simulated_variance_is_the_exact_one(procedure, reference, m, M):
    rng = np.random.default_rng(1)
    b = rng.random((20_000, M))
    first, second = (
        win_rate_samples(p.sample((len(b), m), rng), b, procedure, reference)
        for p in (FIRST, SECOND)
    )
    exact = components(FIRST, procedure, reference).variance(m, M)
    assert abs(z_of_variance(first, exact)) < 5
    paired = difference_components(FIRST, SECOND, procedure, reference)
    assert abs(z_of_variance(first - second, paired.variance(m, M))) < 5
    assert paired.win_rate == pytest.approx(
        win_rate(FIRST, procedure, reference) - win_rate(SECOND, procedure, reference), abs=1e-9
    )


def test_disjoint_groups_vary_more_and_the_simulation_tells():
    """Negative control: the variance of the estimate from disjoint groups is not the exact one."""
    rng, procedure, m = np.random.default_rng(2), BestOfN(4), 16
    wins = win_rate_samples(FIRST.sample((20_000, m), rng), rng.random((20_000, m)), procedure)
    exact = components(FIRST, procedure).variance(m)
    naive = naive_variance(win_rate(FIRST, procedure), 4, m)
    assert naive > 1.2 * exact
    assert abs(z_of_variance(wins, exact)) < 5 < abs(z_of_variance(wins, naive))


@pytest.mark.parametrize(
    "procedure", [BestOfN(1), BestOfN(16), BestOfN(64), WorstOfN(16), median_of(31)]
)
def test_one_subset_is_a_coin(procedure):
    """With N samples for N candidates Ŵ is 0 or 1, so its variance is W(1 − W)."""
    found = components(FIRST, procedure)
    coin = found.win_rate * (1 - found.win_rate)
    n = procedure.candidates
    assert found.variance(n) == pytest.approx(coin, rel=1e-8)
    assert found.win_rate == pytest.approx(win_rate(FIRST, procedure), abs=1e-10)


def test_more_samples_vary_less_down_to_the_linear_part():
    found = components(FIRST, BestOfN(4))
    variances = [found.variance(m) for m in (4, 5, 8, 16, 64, 256, 10**6)]
    assert all(np.diff(variances) < 0)
    linear = 16 * (found.policy[0] + found.reference[0])
    assert variances[-1] * 10**6 == pytest.approx(linear, rel=1e-4)
    assert found.variance(8, 16) < found.variance(8, 8)


def test_samples_of_their_own_cost_a_comparison_more():
    paired = difference_components(FIRST, SECOND, BestOfN(4))
    apart = [components(p, BestOfN(4)) for p in (FIRST, SECOND)]
    assert paired.variance(8) < sum(one.variance(8) for one in apart)
    same = difference_components(FIRST, FIRST, BestOfN(4))
    assert same.reference == pytest.approx(0)
    assert same.variance(8) > 0


def test_the_planned_power_is_the_simulated_power():
    """1,000 whole measurements; a share outside ±0.064 of 0.8 is a false alarm of 5 σ."""
    rng, procedure, m, repeats = np.random.default_rng(3), BestOfN(2), 6, 1_000
    paired = difference_components(FIRST, SECOND, procedure)
    d, apart = paired.win_rate, [components(p, procedure).variance(m) for p in (FIRST, SECOND)]
    prompts = prompts_needed(d, paired.variance(m))
    b = rng.random((repeats * prompts, m))
    wins = [win_rate_samples(p.sample(b.shape, rng), b, procedure) for p in (FIRST, SECOND)]
    differences = (wins[0] - wins[1]).reshape(repeats, prompts)
    z = differences.mean(1) / (differences.std(1, ddof=1) / math.sqrt(prompts))
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.064)
    # Negative control: the number for two sets of reference samples has too much power.
    assert prompts_needed(d, sum(apart)) > 1.15 * prompts


def test_the_rows_plan_for_optimal_policies_that_far_apart():
    (row,) = power(BestOfN(2), 0.06, [8], kl=0.5)
    top, lower = (
        TiltedPolicy(best, best.beta)
        for best in (
            optimal_transform(BestOfN(2), kl=0.5),
            optimal_transform(
                BestOfN(2), kl=least_kl(frontier(BestOfN(2), [0.5])[0] - 0.06, BestOfN(2))
            ),
        )
    )
    paired = difference_components(top, lower, BestOfN(2))
    assert paired.win_rate == pytest.approx(0.06, abs=1e-9)
    assert row.prompts_paired == prompts_needed(0.06, paired.variance(8))
    assert row.standard_error**2 == pytest.approx(components(top, BestOfN(2)).variance(8))


def test_prompts_and_differences_are_each_others_inverse():
    assert prompts_needed(0.05, 0.25) == math.ceil((1.959964 + 0.841621) ** 2 * 0.25 / 0.05**2)
    for variance in (0.01, 0.2):
        p = prompts_needed(0.03, variance, prompt_sd=0.1, power=0.9, confidence=0.99)
        settings = {"prompt_sd": 0.1, "power": 0.9, "confidence": 0.99}
        assert detectable(p, variance, **settings) <= 0.03
        assert detectable(p - 1, variance, **settings) > 0.03


def test_more_samples_need_fewer_prompts_until_prompts_differ():
    rows = power(BestOfN(4), 0.03, [4, 8, 16, 32], prompts=100)
    assert all(np.diff([row.prompts_paired for row in rows]) < 0)
    assert all(np.diff([row.detectable for row in rows]) < 0)
    spread = power(BestOfN(4), 0.03, [256], prompt_sd=0.1)[0]
    assert spread.prompts_paired >= (2.8016 * 0.1 / 0.03) ** 2
    assert math.isnan(spread.detectable)
    assert rows[0].responses_paired == 3 * 4 * rows[0].prompts_paired


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: power(BestOfN(4), 0.0, [8]), "difference is 0"),
        (lambda: power(BestOfN(4), -0.1, [8]), "difference is -0.1"),
        (lambda: power(BestOfN(4), math.nan, [8]), "difference is nan"),
        (lambda: power(BestOfN(4), 0.45, [8], kl=0.5), "smaller difference"),
        (lambda: power(BestOfN(4), 0.02, [3]), "3 samples per prompt came for 4 candidates"),
        (lambda: power(BestOfN(4), 0.02, [8], power=1.0), "power is 1"),
        (lambda: power(BestOfN(4), 0.02, [8], confidence=0.0), "confidence is 0"),
        (lambda: power(BestOfN(4), 0.02, [8], prompts=1), "prompts is 1"),
        (lambda: power(BestOfN(4), 0.02, [8], prompt_sd=-1.0), "prompt_sd"),
        (lambda: components(None, BestOfN(1000)), "up to 256"),
        (lambda: naive_variance(0.5, 4, 3), "one group"),
    ],
)
def test_numbers_out_of_range_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(("n", "kl"), [(32, 4.0), (256, 1.0)])
def test_a_win_rate_of_almost_1_keeps_its_variance(n, kl):
    """V(N) = W(1 − W) with 1 − W of 1.8e-7 and 9.3e-10, where 1 − W itself has few digits."""
    best = optimal_transform(BestOfN(n), kl=kl)
    found = components(TiltedPolicy(best, best.beta), BestOfN(n))
    assert 0 < 1 - best.win_rate < 2e-7
    assert found.variance(n) == pytest.approx(1 - best.win_rate, rel=1e-5)


def test_a_saturated_win_rate_is_said_to_be_so():
    (row,) = power(BestOfN(64), 0.02, [64], kl=8.0)
    assert math.isnan(row.standard_error)
    assert row.prompts_paired >= 2


def test_the_parts_of_both_samples_are_the_double_integrals():
    """One component at a time, by the running integral of one product."""
    edges = _edges(FIRST)
    side = _Side.of(FIRST, BestOfN(5), WorstOfN(3), edges)
    both = side.both_part()
    for d, e in ((1, 1), (3, 2), (5, 3)):
        p, q = side.policy.lower(d), side.policy.upper(d)
        up, down = side.reference.slopes(e)
        kink = np.sum(side.reference.kink(e) * side.weights * p * q)
        assert both[d - 1, e - 1] == pytest.approx(side.twice(p * up, q * down) + kink, rel=1e-12)


def test_lost_digits_are_refused():
    """Where neither end is picked, terms of order N cancel: 2^64 is beyond floating point."""
    found = components(FIRST, median_of(3))
    broken = dataclasses.replace(found, policy=found.policy * (1 + 1e-4))
    with pytest.raises(ArithmeticError, match="cancel"):
        _refuse_lost_digits(broken, 1 - found.win_rate, median_of(3), median_of(3))
    with pytest.raises(ValueError, match="up to 32"):
        components(FIRST, median_of(64))
