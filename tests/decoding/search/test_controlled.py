"""Controlled decoding is exact where the value is, on a table of tokens by enumeration."""

import sys

import numpy as np
import pytest

from infalign.decoding.search import RewardValue, TabularValue, controlled
from infalign.policies import TabularLM, TabularPolicy
from infalign.protocols import Continuer, LogitPolicy

PROMPTS = ("x", "y")
BETA = 0.4


@pytest.fixture(scope="module")
def lm():
    return TabularLM.random(PROMPTS, ("a", "b", "c"), 4, np.random.default_rng(0), spread=1.5)


@pytest.fixture(scope="module")
def rewards(lm):
    """Without structure: every sequence its own number, so that no beginning tells its end."""
    return np.random.default_rng(1).normal(size=lm.masses.shape)


def masses(policy, lm):
    """π(y|x) of every sequence, "P S"."""
    everything = [[lm.response(ids, 0.0) for ids in lm.sequences]] * len(PROMPTS)
    return np.exp(policy.log_prob(PROMPTS, everything))


def variation(p, q):
    return 0.5 * np.abs(p - q).sum(-1)


def completions(lm, beginning):
    """Columns of the sequences that begin so."""
    return [i for i, s in enumerate(lm.sequences) if s[: len(beginning)] == beginning]


def test_values_are_sums_over_what_may_follow(lm, rewards):
    mean, soft = TabularValue.mean(lm, rewards), TabularValue.soft(lm, rewards, BETA)
    best = TabularValue.best(lm, rewards)
    for beginning in ((), (1,), (2, 0), (0, 1, 2), (0, 3), (1, 1, 1, 1)):
        columns = completions(lm, beginning)
        law = lm.masses[:, columns] / lm.masses[:, columns].sum(1, keepdims=True)
        here, asked = rewards[:, columns], [beginning] * len(PROMPTS)
        np.testing.assert_allclose(mean(PROMPTS, asked), (law * here).sum(1), atol=1e-12)
        expected = BETA * np.log((law * np.exp(here / BETA)).sum(1))
        np.testing.assert_allclose(soft(PROMPTS, asked), expected, atol=1e-12)
        np.testing.assert_array_equal(best(PROMPTS, asked), here.max(1))


def test_the_soft_value_makes_it_the_tilted_policy(lm, rewards):
    """All 2 × 121 masses to 1e-12; measured 2e-16."""
    steered = controlled(lm, TabularValue.soft(lm, rewards, BETA), BETA)
    np.testing.assert_allclose(masses(steered, lm), lm.tilt(rewards, BETA).masses, atol=1e-12)


def test_negative_controls_are_other_policies(lm, rewards):
    """The mean value, the soft value of another β, the reward of what is written so far."""
    tilted = lm.tilt(rewards, BETA).masses
    mean = controlled(lm, TabularValue.mean(lm, rewards), BETA)
    other = controlled(lm, TabularValue.soft(lm, rewards, 2 * BETA), BETA)
    for wrong in (mean, other):
        found = masses(wrong, lm)
        np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-12)
        assert (variation(found, tilted) > 0.02).all()


def test_the_mean_value_gains_less_at_its_kl_than_the_soft_one(lm, rewards):
    """The tilt is the best at its KL, so the mean value's reward lies below the frontier there."""
    found = masses(controlled(lm, TabularValue.mean(lm, rewards), BETA), lm)
    betas = np.geomspace(0.05, 20, 400)
    tilts = [lm.tilt(rewards, beta).masses for beta in betas]
    for p in range(len(PROMPTS)):
        kl = (found[p] * np.log(found[p] / lm.masses[p])).sum()
        along = [(t[p] * np.log(t[p] / lm.masses[p])).sum() for t in tilts]
        gains = [(t[p] * rewards[p]).sum() for t in tilts]
        assert (found[p] * rewards[p]).sum() < np.interp(kl, along[::-1], gains[::-1]) - 1e-3


def test_a_large_beta_is_the_policy_itself(lm, rewards):
    steered = controlled(lm, TabularValue.mean(lm, rewards), 1e9)
    np.testing.assert_allclose(masses(steered, lm), lm.masses, atol=1e-8)


def test_samples_and_continuations_follow_the_law(lm, rewards):
    """Total variation of 8000 draws, against twice what it is on average under the right law,
    sqrt(2/π)·Σ sqrt(p(1−p)/n)/2; its spread is a tenth of that, so false alarms are below 1e-9.
    The law of the policy that is not steered must fail."""
    n, steered = 8000, controlled(lm, TabularValue.soft(lm, rewards, BETA), BETA)
    tilted = lm.tilt(rewards, BETA)
    drawn = steered.sample(["x"], n, np.random.default_rng(2))[0]
    counts = np.bincount([lm.places[r.token_ids] for r in drawn], minlength=len(lm.sequences)) / n

    def floor(p):
        return 0.5 * np.sqrt(2 / np.pi) * np.sqrt(p * (1 - p) / n).sum()

    assert variation(counts, tilted.masses[0]) < 2 * floor(tilted.masses[0])
    assert variation(counts, lm.masses[0]) > 2 * floor(lm.masses[0])
    begun = steered.continue_from(["x"], [(1,)], n, np.random.default_rng(3))[0]
    columns = completions(lm, (1,))
    law = np.zeros(len(lm.sequences))
    law[columns] = tilted.masses[0, columns] / tilted.masses[0, columns].sum()
    counts = np.bincount([lm.places[r.token_ids] for r in begun], minlength=len(law)) / n
    assert variation(counts, law) < 2 * floor(law)
    one = begun[0]
    first = controlled(lm, TabularValue.soft(lm, rewards, BETA), BETA).stream(["x"])
    whole = steered.log_prob(["x"], [[one]])[0, 0]
    np.testing.assert_allclose(one.log_prob, whole - first.log_law()[0, 1], atol=1e-12)


def test_cut_by_a_limit_and_continued_it_is_the_same_policy(lm, rewards):
    steered = controlled(lm, TabularValue.soft(lm, rewards, BETA), BETA)
    (row,) = steered.continue_from(["x"], [()], 50, np.random.default_rng(4), limit=2)
    assert {r.finish_reason for r in row} == {"stop", "limit"}
    assert all(len(r.token_ids) == 2 for r in row if r.finish_reason == "limit")
    assert isinstance(steered, LogitPolicy)
    assert isinstance(steered, Continuer)


def test_truncation_is_the_truncated_policy_steered(lm, rewards):
    """Top 2 of 4: equal to the table whose laws keep their two likeliest tokens, steered."""
    value = TabularValue.mean(lm, rewards)
    kept = lm.laws >= np.sort(lm.laws, -1)[..., -2:-1]
    laws = np.where(kept, lm.laws, 0.0)
    short = TabularLM(lm.prompts, lm.tokens, laws / laws.sum(-1, keepdims=True))
    np.testing.assert_allclose(
        masses(controlled(lm, value, BETA, top=2), lm),
        masses(controlled(short, value, BETA), lm),
        atol=1e-12,
    )
    full = masses(controlled(lm, value, BETA), lm)
    assert (variation(masses(controlled(lm, value, BETA, top=2), lm), full) > 0.05).all()
    np.testing.assert_array_equal(masses(controlled(lm, value, BETA, top=4), lm), full)


def test_greedy_and_one_beam_agree_and_many_beams_find_the_best(lm, rewards):
    steered = controlled(lm, TabularValue.soft(lm, rewards, BETA), BETA)
    (one,) = steered.greedy(["x"])
    assert steered.beam(["x"], 1)[0][0].token_ids == one.token_ids
    best = steered.beam(["x"], len(lm.beginnings))[0][0]
    assert lm.places[best.token_ids] == lm.tilt(rewards, BETA).masses[0].argmax()


def test_the_reward_of_the_text_so_far_steers_too(lm):
    """A reward that adds up over tokens: its differences are the soft value's, up to the future."""

    class Count:
        name = "count"

        def __call__(self, prompts, responses):
            return np.array([[float(text.count("a")) for text in row] for row in responses])

    value = RewardValue(Count(), lm)
    np.testing.assert_array_equal(value(["x", "x", "y"], [(0, 0), (1,), (0, 3)]), [2, 0, 1])
    steered = controlled(lm, value, BETA)
    law = np.exp(steered.stream(["x"]).log_law()[0])
    plain = lm.laws[0, 0] * np.exp(np.array([1, 0, 0, 0]) / BETA)
    np.testing.assert_allclose(law, plain / plain.sum(), atol=1e-12)


def test_rewards_of_a_large_vocabulary_are_asked_about_its_likeliest_tokens(lm, monkeypatch):
    """Where only the law tells how many tokens there are; a table may be asked of all."""

    class Zero:
        name = "zero"

        def __call__(self, prompts, responses):
            return np.zeros((len(responses), len(responses[0])))

    monkeypatch.setattr(sys.modules[controlled.__module__], "_READABLE", 3)
    with pytest.raises(ValueError, match=r"asks? zero so far about each of 4 tokens.*give top"):
        controlled(lm, RewardValue(Zero(), lm), BETA).greedy(["x"])
    assert controlled(lm, RewardValue(Zero(), lm), BETA, top=2).greedy(["x"])
    told = np.zeros((len(lm.prompts), len(lm.sequences)))
    assert controlled(lm, TabularValue.mean(lm, told), BETA).greedy(["x"])


def test_the_fingerprint_is_of_everything(lm, rewards):
    value = TabularValue.mean(lm, rewards)
    made = [
        controlled(lm, value, 0.5),
        controlled(lm, value, 0.6),
        controlled(lm, value, 0.5, top=3),
        controlled(lm, TabularValue.mean(lm, rewards + 1), 0.5),
        controlled(lm.tilt(rewards, 1.0), TabularValue.mean(lm, rewards), 0.5),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert controlled(lm, value, 0.5).fingerprint == made[0].fingerprint


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_beta_must_be_positive(lm, rewards, beta):
    with pytest.raises(ValueError, match="beta is"):
        controlled(lm, TabularValue.mean(lm, rewards), beta)
    with pytest.raises(ValueError, match="beta is"):
        TabularValue.soft(lm, rewards, beta)


@pytest.mark.parametrize("top", [0, -1, True, 1.5])
def test_top_must_be_a_count(lm, rewards, top):
    with pytest.raises(ValueError, match="top is"):
        controlled(lm, TabularValue.mean(lm, rewards), 1.0, top=top)


def test_what_cannot_be_steered_is_refused(lm, rewards):
    value = TabularValue.mean(lm, rewards)
    table = TabularPolicy(("x",), (("yes", "no"),), np.array([[0.5, 0.5]]))
    with pytest.raises(TypeError, match="reads next-token laws"):
        controlled(table, value, 1.0)
    other = TabularLM.random(("x",), ("d", "e"), 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="vocabulary"):
        controlled(other, value, 1.0)
    with pytest.raises(ValueError, match="all finite: False"):
        TabularValue.mean(lm, np.full_like(rewards, np.nan))
    with pytest.raises(ValueError, match="shape"):
        TabularValue(lm, value.open_values[:, 1:], rewards)


def test_a_value_that_is_no_number_is_refused(lm):
    class Broken:
        name, fingerprint, vocabulary = "broken", "0", lm.vocabulary

        def __call__(self, prompts, beginnings):
            return np.full(len(prompts), np.nan)

    with pytest.raises(ValueError, match="broken says nan"):
        controlled(lm, Broken(), 1.0).sample(["x"], 1, np.random.default_rng(0))
