"""Estimators: equal to enumeration, unbiased on a known law, honest about their error."""

import itertools

import jaxtyping
import numpy as np
import pytest

from infalign import evaluation
from infalign.quantile import procedures
from infalign.quantile.subsets import subset_weights

BEST2, BEST3 = procedures.BestOfN(2), procedures.BestOfN(3)
WORST3, MEDIAN = procedures.WorstOfN(3), procedures.OrderStatistic((0.0, 1.0, 0.0))
MIXED = procedures.OrderStatistic((0.2, 0.3, 0.5))
PAIRS = [(BEST2, BEST2), (BEST3, BEST2), (WORST3, WORST3), (MEDIAN, BEST3), (MIXED, MIXED)]

# Where shapes in signatures are checked, that check comes first.
OTHER_PROMPTS = (ValueError, jaxtyping.TypeCheckError)


def decoded(rewards, judged, procedure):
    """Law of the judged value after decoding, by enumeration: {value: probability}."""
    p = procedure.rank_probabilities
    law = {}
    subsets = list(itertools.combinations(range(len(rewards)), len(p)))
    for subset in subsets:
        # All ways to break ties, equally likely.
        orders = [
            order
            for order in itertools.permutations(subset)
            if all(rewards[i] <= rewards[j] for i, j in itertools.pairwise(order))
        ]
        for order in orders:
            for rank, i in enumerate(order):
                mass = p[rank] / len(orders) / len(subsets)
                law[judged[i]] = law.get(judged[i], 0.0) + mass
    return law


def enumerated(a, b, procedure, reference_procedure, a_judged=None, b_judged=None):
    """The win rate by its definition."""
    a_law = decoded(a, a if a_judged is None else a_judged, procedure)
    b_law = decoded(b, b if b_judged is None else b_judged, reference_procedure)
    return sum(
        p * q * ((x > y) + 0.5 * (x == y)) for x, p in a_law.items() for y, q in b_law.items()
    )


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "distinct"])
def test_win_rate_equals_enumeration_of_all_subsets(pair, levels):
    rng = np.random.default_rng(1)
    a, b = rng.integers(levels, size=(4, 6)).astype(float), rng.integers(levels, size=(4, 5)) * 1.0
    fast = evaluation.win_rate_samples(a, b, *pair)
    slow = [enumerated(x, y, *pair) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_judge_sees_what_the_proxy_picked(pair):
    rng = np.random.default_rng(2)
    a, b, a_gold, b_gold = rng.integers(4, size=(4, 3, 5)).astype(float)
    fast = evaluation.win_rate_samples(a, b, *pair, policy_judged=a_gold, reference_judged=b_gold)
    slow = [
        enumerated(*sides[:2], *pair, *sides[2:])
        for sides in zip(a, b, a_gold, b_gold, strict=True)
    ]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def _with_replacement(rewards):
    """What bootstrap best-of-4 converges to: weights (i/m)^4 − ((i−1)/m)^4 on the i-th smallest."""
    m = rewards.shape[1]
    return np.broadcast_to(np.diff((np.arange(m + 1) / m) ** 4), rewards.shape)


def _z_of_known_law(weights):
    """z-score of best-of-4 of F = u² against the undecoded reference, m = 6; truth 1 − 1/9."""
    rng = np.random.default_rng(3)
    a, b = np.sort(rng.random((20_000, 6)) ** 0.5), rng.random((20_000, 6))
    mean = evaluation.estimate(evaluation.compare(a, weights(a), b, np.full(b.shape, 1 / 6)))
    return (mean.value - 8 / 9) / mean.se


def test_unbiased_on_a_known_law():
    """False alarm 6e-5: |z| < 4 for a fixed seed."""
    assert abs(_z_of_known_law(lambda x: evaluation.picks(x, procedures.BestOfN(4)))) < 4


def test_resampling_with_replacement_is_caught_as_biased_low():
    assert _z_of_known_law(_with_replacement) < -10
    a, b = np.random.default_rng(4).random((2, 1, 6))
    biased = evaluation.compare(np.sort(a), _with_replacement(a), np.sort(b), _with_replacement(b))
    assert abs(biased[0] - enumerated(a[0], b[0], *[procedures.BestOfN(4)] * 2)) > 1e-3


def test_one_sample_set_serves_every_n():
    rewards = np.random.default_rng(5).random((3, 8))
    for n in range(1, 9):
        procedure = procedures.BestOfN(n)
        itself = evaluation.win_rate_samples(rewards, rewards, procedure)
        np.testing.assert_allclose(itself, 0.5, atol=1e-12)


@pytest.mark.parametrize("family", [procedures.BestOfN, procedures.WorstOfN])
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "distinct"])
def test_every_n_at_once_equals_enumeration(family, levels):
    rng = np.random.default_rng(11)
    a, b = rng.integers(levels, size=(4, 6)).astype(float), rng.integers(levels, size=(4, 5)) * 1.0
    fast = evaluation.win_rates_every_n(a, b, family)
    assert fast.shape == (4, 5)  # as many as the smaller side has samples
    for n in range(1, 6):
        slow = [enumerated(x, y, family(n), family(n)) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(fast[:, n - 1], slow, atol=1e-12)


@pytest.mark.parametrize("family", [procedures.BestOfN, procedures.WorstOfN])
def test_rewards_of_every_n_equal_enumeration(family):
    rewards = np.random.default_rng(13).integers(4, size=(3, 6)).astype(float)
    fast = evaluation.rewards_every_n(rewards, family)
    for n in range(1, 7):
        laws = [decoded(row, row, family(n)) for row in rewards]
        slow = [sum(value * mass for value, mass in law.items()) for law in laws]
        np.testing.assert_allclose(fast[:, n - 1], slow, atol=1e-12)


def test_every_n_at_once_is_the_same_in_many_chunks_and_in_any_order(monkeypatch):
    rng = np.random.default_rng(12)
    a, b = rng.normal(size=(50, 9)).round(1), rng.normal(size=(50, 12)).round(1)
    whole = evaluation.win_rates_every_n(a, b, ns=[4, 1])
    np.testing.assert_array_equal(whole, evaluation.win_rates_every_n(a, b)[:, [3, 0]])
    monkeypatch.setattr("infalign.evaluation.win_rates.CHUNK", 7)
    np.testing.assert_array_equal(whole, evaluation.win_rates_every_n(a, b, ns=[4, 1]))
    for column, n in enumerate((4, 1)):
        alone = evaluation.win_rate_samples(a, b, procedures.BestOfN(n))
        np.testing.assert_allclose(whole[:, column], alone, atol=1e-12)
    with pytest.raises(ValueError, match="only 9 samples"):
        evaluation.win_rates_every_n(a, b, ns=[10])


def test_weights_stay_exact_for_many_samples():
    weights = subset_weights(5000, np.eye(64)[63])
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] == pytest.approx(64 / 5000, rel=1e-9)  # in a subset, the largest is best


def test_more_candidates_than_samples_are_refused():
    with pytest.raises(ValueError, match="draws 3 candidates but there are only 2 samples"):
        evaluation.win_rate_samples(np.ones((2, 2)), np.ones((2, 4)), BEST3)


def test_unscored_samples_are_refused_with_their_place():
    rewards = np.ones((2, 4))
    holed = rewards.copy()
    holed[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"reference_rewards\[1, 2\] is nan"):
        evaluation.win_rate_samples(rewards, holed, BEST2)


def test_sides_with_different_prompts_are_refused():
    with pytest.raises(OTHER_PROMPTS, match=r"number of prompts|Type-check"):
        evaluation.win_rate_samples(np.ones((2, 4)), np.ones((3, 4)), BEST2)
    with pytest.raises(ValueError, match="both sides"):
        evaluation.win_rate_samples(
            np.ones((2, 4)), np.ones((2, 4)), BEST2, policy_judged=np.ones((2, 4))
        )


@pytest.mark.parametrize("resamples", [0, 1000], ids=["student", "bootstrap"])
def test_intervals_cover_as_often_as_they_say(resamples):
    """95 % intervals on 600 sets of 25 prompts; 0.90 and 0.985 lie 5 standard errors away."""
    rng = np.random.default_rng(6)
    inside = []
    for _ in range(600):
        made = evaluation.estimate(rng.normal(size=25), resamples=resamples, rng=rng)
        inside.append(made.low < 0 < made.high)
    assert 0.90 < np.mean(inside) < 0.985


def test_bootstrap_is_seeded_and_needs_a_generator():
    values = np.random.default_rng(7).random(9)
    first, second = (
        evaluation.estimate(values, resamples=200, rng=np.random.default_rng(8)) for _ in range(2)
    )
    assert first == second
    with pytest.raises(ValueError, match="needs rng"):
        evaluation.estimate(values, resamples=200)


def test_pairing_removes_what_prompts_share():
    rng = np.random.default_rng(9)
    prompt = rng.normal(size=40)
    a, b = prompt + 0.1 + 0.01 * rng.normal(size=40), prompt + 0.01 * rng.normal(size=40)
    paired = evaluation.paired_difference(a, b)
    assert paired.is_different_from_zero
    assert paired.value == pytest.approx(0.1, abs=0.02)
    assert paired.se < 0.1 * evaluation.estimate(a).se
    with pytest.raises(OTHER_PROMPTS, match=r"same prompts|Type-check"):
        evaluation.paired_difference(a, b[:5])


def test_one_prompt_has_no_error_bar():
    with pytest.raises(ValueError, match="at least 2 prompts"):
        evaluation.estimate(np.array([0.5]))


def test_kl_estimates_are_unbiased():
    """Two-step chains with known KL. False alarm 6e-5 each: |z| < 4 for a fixed seed."""
    rng = np.random.default_rng(10)
    start, steps = np.array([0.2, 0.8]), np.array([[0.9, 0.1], [0.4, 0.6]])
    first = (rng.random((400, 16)) < start[1]).astype(int)
    second = (rng.random((400, 16)) < steps[first, 1]).astype(int)
    log_prob = np.log(start[first]) + np.log(steps[first, second])
    uniform = np.full_like(log_prob, 2 * np.log(0.5))

    def kl_to_uniform(law):
        return (law * np.log(law / 0.5)).sum(-1)

    truth = kl_to_uniform(start) + start @ kl_to_uniform(steps)
    k1 = evaluation.estimate(evaluation.kl_from_log_probs(log_prob, uniform))
    along = kl_to_uniform(start) + kl_to_uniform(steps)[first]
    exact = evaluation.estimate(evaluation.kl_from_divergences(along))
    assert abs(k1.value - truth) < 4 * k1.se
    assert abs(exact.value - truth) < 4 * exact.se
    assert exact.se < 0.5 * k1.se


def test_the_optimum_is_the_whole_limit():
    from infalign.quantile.win_rate import frontier

    procedure = procedures.BestOfN(4)
    limit = float(np.ravel(frontier(procedure, [0.5]))[0])
    assert limit == pytest.approx(0.87325, abs=2e-5)
    assert evaluation.fraction_of_limit(limit, 0.5, procedure) == pytest.approx(1)
    assert evaluation.fraction_of_limit(0.5, 0.5, procedure) == 0
    with pytest.raises(ValueError, match="at no divergence"):
        evaluation.fraction_of_limit(0.5, 0.0, procedure)
