"""Search over blocks: best-of-N at one end, the tilted policy at the other, exact in between.

Laws are compared by total variation with n answers; twice what it is on average under the right
law, sqrt(2/π)·Σ sqrt(p(1−p)/n)/2, is exceeded by chance less than once in 1e6 (its spread is about
a seventh of it). Each comparison has a wrong law that must fail.
"""

import dataclasses
import itertools
import warnings
from collections import Counter

import numpy as np
import pytest

from infalign.decoding import BlockwiseBestOfN, decode
from infalign.decoding.search import BlockSearch, TabularValue, TreeSearch, controlled
from infalign.decoding.search.block_search import _resampled
from infalign.policies import TabularLM, TabularPolicy
from infalign.policies.alignment import Alignment
from infalign.prompts import Prompt
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN

BETA = 0.7


@pytest.fixture(scope="module")
def lm():
    return TabularLM.random(("x",), ("a", "b"), 3, np.random.default_rng(0))


@pytest.fixture(scope="module")
def rewards(lm):
    """Of the sequences; the beginnings' are made of the same numbers, see :class:`Told`."""
    return np.random.default_rng(1).normal(size=lm.masses.shape)


class Told:
    """A reward by text: of what is whole from a table; texts of beginnings are texts of wholes."""

    name = "told"

    def __init__(self, lm, rewards, broken=()):
        self.known = dict(zip(lm.texts(), rewards[0], strict=True))
        self.asked, self.broken = 0, broken

    def __call__(self, prompts, responses):
        self.asked += sum(map(len, responses))
        known = [
            [float("nan") if t in self.broken else self.known[t] for t in r] for r in responses
        ]
        return np.array(known)


def prompts(n):
    return [Prompt(str(i), "x") for i in range(n)]


def answers(lm, rewards, procedure, n, seed=0, **options):
    """How often each sequence is the answer."""
    found = decode(
        lm, prompts(n), Told(lm, rewards), procedure, rng=np.random.default_rng(seed), **options
    )
    return found, shares(lm, [one.candidates[one.index] for one in found])


def shares(lm, responses):
    counts = Counter(lm.places[one.token_ids] for one in responses)
    return np.array([counts[i] for i in range(len(lm.sequences))]) / len(responses)


def variation(p, q):
    return 0.5 * np.abs(p - q).sum()


def bar(p, n):
    return np.sqrt(2 / np.pi) * np.sqrt(p * (1 - p) / n).sum()


def best_of(law, values, n):
    """Law of the best of n draws, without ties among different places."""
    order = np.argsort(values)
    ends = np.cumsum(law[order]) ** n
    found = np.zeros_like(law)
    found[order] = np.diff(ends, prepend=0.0)
    return found


def exact_beam(lm, value, width, expand):
    """Law of a greedy beam over single tokens, by enumeration of every level's draws."""
    v, cap = len(lm.tokens), lm.sampling.max_new_tokens

    def over(node):
        return bool(node) and (node[-1] == v or len(node) == cap)

    states = {((),): 1.0}
    for level in range(cap):
        after = Counter()
        for kept, mass in states.items():
            begun = [node for node in kept if not over(node)]
            slots = [node for node in begun for _ in range(expand if level else expand * width)]
            laws = [lm.laws[0, lm.place(node)] for node in slots]
            for tokens in itertools.product(range(v + 1), repeat=len(slots)):
                chance = np.prod([law[t] for law, t in zip(laws, tokens, strict=True)])
                pool = {(*node, t) for node, t in zip(slots, tokens, strict=True)}
                pool |= {node for node in kept if over(node)}
                best = sorted(pool, key=lambda node: -value(["x"], [node])[0])[:width]
                after[tuple(sorted(best))] += mass * chance
        states = after
    law = np.zeros(len(lm.sequences))
    for kept, mass in states.items():
        law[lm.places[max(kept, key=lambda node: value(["x"], [node])[0])]] += mass
    return law


@pytest.mark.parametrize("block", [None, 3, 99])
@pytest.mark.parametrize("width", [1, 3])
def test_blocks_as_long_as_responses_are_best_of_n(lm, rewards, block, width):
    """The same seed, the same candidates, the same answers."""
    search = BlockSearch(width, 12 // width, block=block)
    mine, _ = answers(lm, rewards, search, 200, seed=2)
    best, _ = answers(lm, rewards, BestOfN(12), 200, seed=2)
    assert [one.text for one in mine] == [one.text for one in best]
    assert [max(one.rewards) for one in mine] == [max(one.rewards) for one in best]
    assert [one.budget for one in mine] == [one.budget for one in best]
    tree, _ = answers(lm, rewards, TreeSearch(5, 12, block=block), 200, seed=2)
    assert [one.text for one in tree] == [one.text for one in best]


@pytest.mark.parametrize("rollouts", [0, 2])
def test_one_greedy_beam_is_blockwise_best_of_n(lm, rewards, rollouts):
    """Here by the reward of the text so far and by completions; the same seed, the same answers."""
    search = BlockSearch(1, 4, block=1, rollouts=rollouts)
    mine, _ = answers(lm, rewards, search, 200, seed=3)
    theirs, _ = answers(lm, rewards, BlockwiseBestOfN(4, 1, rollouts), 200, seed=3)
    assert [one.text for one in mine] == [one.text for one in theirs]
    assert [one.budget for one in mine] == [one.budget for one in theirs]


def test_equal_rewards_are_as_likely_as_under_best_of_n(lm):
    """All tie: the answer is a draw of the policy, not of the distinct responses."""
    flat, n = np.zeros(lm.masses.shape), 3000
    for procedure in (BlockSearch(2, 2, block=None), TreeSearch(1, 4, block=None)):
        _, found = answers(lm, flat, procedure, n)
        assert variation(found, lm.masses[0]) < bar(lm.masses[0], n)
    distinct = np.full(len(lm.sequences), 1 / len(lm.sequences))
    assert variation(found, distinct) > bar(distinct, n)


@pytest.mark.parametrize(("width", "expand"), [(1, 3), (2, 2)])
def test_a_beam_follows_its_enumerated_law(lm, rewards, width, expand):
    """Guided by the exact mean; 4000 answers. The law of best-of-N must fail."""
    n, value = 4000, TabularValue.mean(lm, rewards)
    law = exact_beam(lm, value, width, expand)
    np.testing.assert_allclose(law.sum(), 1.0)
    _, found = answers(lm, rewards, BlockSearch(width, expand, block=1, value=value), n)
    assert variation(found, law) < bar(law, n)
    assert variation(found, best_of(lm.masses[0], rewards[0], width * expand)) > bar(law, n)


def test_the_best_value_to_come_finds_the_best_response(lm, rewards):
    """With enough children an exact bound on what can be reached leads straight there."""
    value, best = TabularValue.best(lm, rewards), rewards[0].argmax()
    for procedure in (
        BlockSearch(1, 200, block=1, value=value),
        TreeSearch(8, 200, block=1, value=value),
    ):
        found, share = answers(lm, rewards, procedure, 20)
        assert share[best] == 1.0
    assert all(len(one.rewards) >= 1 for one in found)
    _, share = answers(lm, rewards, BlockSearch(1, 1, block=1, value=value), 200)
    assert share[best] < 0.9  # one child: nothing to choose among


def test_a_tree_comes_back_where_a_beam_cannot(lm):
    """The best first token leads to bad ends; the reward of the text so far does not know."""
    rewards = np.array([[-1.0] * len(lm.sequences)])
    for sequence, value in (((0, 2), 1.0), ((1, 0, 0), 9.0), ((1, 2), 0.0), ((1, 0, 2), 0.5)):
        rewards[0, lm.places[sequence]] = value
    beam, _ = answers(lm, rewards, BlockSearch(1, 100, block=1), 20)
    tree, _ = answers(lm, rewards, TreeSearch(30, 100, block=1), 20)
    assert {one.rewards[one.index] for one in beam} == {1.0}
    assert {one.rewards[one.index] for one in tree} == {9.0}


def pooled(lm, found):
    """Mean share of each sequence among the particles, and the variation that chance explains.

    Particles of a run share parents; the runs are independent, so the floor is from their spread.
    """
    runs = np.array([shares(lm, one.candidates) for one in found])
    errors = runs.std(0, ddof=1) / np.sqrt(len(runs))
    return runs.mean(0), np.sqrt(2 / np.pi) * errors.sum() / 2


@pytest.mark.parametrize("expand", [1, 3])
@pytest.mark.parametrize("guide", ["reward", "rollouts", "mean", "none"])
def test_particles_tend_to_the_tilted_policy(lm, rewards, guide, expand):
    """150 runs of 96 particles, whatever guides: within 2.5 floors of the tilt.

    Over 24 runs of guides and seeds it was 0.4 to 1.8 floors, 1.0 ± 0.3; the floor is 0.01 and the
    policy itself is 0.16 away.
    """
    options = {
        "reward": {},
        "rollouts": {"rollouts": 2},
        "mean": {"value": TabularValue.mean(lm, rewards)},
        "none": {"value": TabularValue(lm, np.zeros((1, len(lm.beginnings))), rewards)},
    }[guide]
    search = BlockSearch(96, expand, BETA, block=1, **options)
    found, _ = answers(lm, rewards, search, 150, seed=1)
    mean, floor = pooled(lm, found)
    assert variation(mean, lm.tilt(rewards, BETA).masses[0]) < 2.5 * floor
    assert variation(mean, lm.masses[0]) > 0.1


@pytest.mark.parametrize("wrong", ["values", "copies"])
def test_negative_control_wrong_weights_miss_the_tilted_policy(lm, rewards, wrong, monkeypatch):
    """Weights exp(V/β) at every level; ended responses that count once among their peers' three.

    Measured 0.35 and 0.38, against floors of 0.01.
    """
    kept = BlockSearch._kept

    def spoiled(self, nodes, before, copies, rng):
        before = np.zeros_like(before) if wrong == "values" else before
        copies = np.ones_like(copies) if wrong == "copies" else copies
        return kept(self, nodes, before, copies, rng)

    monkeypatch.setattr(BlockSearch, "_kept", spoiled)
    found, _ = answers(lm, rewards, BlockSearch(96, 3, BETA, block=1), 50)
    mean, floor = pooled(lm, found)
    assert variation(mean, lm.tilt(rewards, BETA).masses[0]) > 10 * floor


def test_one_particle_follows_its_enumerated_law(lm, rewards):
    """Width 1: the answer is one of `expand` whole responses, drawn with weights exp(r/β)."""
    n, masses = 4000, lm.masses[0]
    weights = np.exp(rewards[0] / BETA)
    pair = masses[:, None] * masses[None] / (weights[:, None] + weights[None])
    law = 2 * (pair * weights[:, None]).sum(1)
    _, found = answers(lm, rewards, BlockSearch(1, 2, BETA, block=None), n)
    assert variation(found, law) < bar(law, n)
    assert variation(found, lm.tilt(rewards, BETA).masses[0]) > bar(law, n)


def test_systematic_resampling_is_unbiased_and_never_far():
    """Counts within one of their means; means over 4000 runs within 5 errors (< 0.5/√4000 each)."""
    rng, weights = np.random.default_rng(0), np.array([0.0, 2.0, 1.0, 0.0, 4.5])
    wanted = 7 * weights / weights.sum()
    counts = np.array([np.bincount(_resampled(weights, 7, rng), minlength=5) for _ in range(4000)])
    assert (np.abs(counts - wanted) < 1).all()
    assert np.abs(counts.mean(0) - wanted).max() < 5 * 0.5 / np.sqrt(4000)


def test_the_budget_counts_every_token_once(lm, rewards):
    """A chain of blocks of one token without choice costs its own tokens; rollouts are extra."""
    found, _ = answers(lm, rewards, BlockSearch(1, 1, block=1), 50)
    for one in found:
        assert one.budget.tokens == len(one.candidates[0].token_ids)
        assert one.budget.responses == one.details["levels"] == one.budget.tokens
        np.testing.assert_allclose(
            one.candidates[0].log_prob, lm.log_prob(["x"], [[one.candidates[0]]])[0, 0]
        )
    plain, _ = answers(lm, rewards, BlockSearch(2, 2, block=1), 50)
    rolled, _ = answers(lm, rewards, BlockSearch(2, 2, block=1, rollouts=3), 50)
    assert np.mean([one.budget.tokens for one in rolled]) > 2 * np.mean(
        [one.budget.tokens for one in plain]
    )


@pytest.mark.parametrize("rollouts", [0, 1])
@pytest.mark.parametrize("make", [BlockSearch, TreeSearch])
@pytest.mark.parametrize("block", [1, 2, None])
def test_what_it_takes_at_most_is_never_passed_and_reached(lm, rewards, make, block, rollouts):
    """Responses that never end before the cap of 3 tokens take the most there is."""
    search = make(2, 2, block=block, rollouts=rollouts)
    laws = np.tile([0.5, 0.5, 0.0], (1, 7, 1))
    endless = TabularLM(("x",), ("a", "b"), laws)
    bound = search.most_within(3)
    for table, reached in ((lm, False), (endless, make is BlockSearch)):
        found, _ = answers(table, rewards, search, 60)
        most = [max(getattr(one.budget, what) for one in found) for what in ("responses", "tokens")]
        assert most[0] <= bound.responses
        assert most[1] <= bound.tokens
        if reached:
            assert most == [bound.responses, bound.tokens]


def test_rewards_are_asked_once(lm, rewards):
    reward = Told(lm, rewards)
    decode(lm, prompts(1), reward, BlockSearch(2, 4, block=None), rng=np.random.default_rng(0))
    assert reward.asked == 8
    guided = BlockSearch(2, 4, block=1, value=TabularValue.mean(lm, rewards))
    reward = Told(lm, rewards)
    decode(lm, prompts(1), reward, guided, rng=np.random.default_rng(0))
    assert reward.asked == 2


def test_one_beam_guided_by_a_value_needs_no_reward(lm, rewards):
    search = BlockSearch(1, 4, block=1, value=TabularValue.mean(lm, rewards))
    (one,) = decode(lm, prompts(1), None, search, rng=np.random.default_rng(0))
    assert np.isnan(one.rewards[0])
    with pytest.raises(ValueError, match="needs a reward"):
        decode(lm, prompts(1), None, BlockSearch(2, 4), rng=np.random.default_rng(0))


def test_quantiles_are_another_scale(lm, rewards):
    """Rollout means of quantiles: an enormous reward counts no more than the best rank."""
    reference = np.sort(np.repeat(rewards, 3, 0), axis=1)
    calibration = EmpiricalCalibration(("0", "1", "2"), reference)
    search = BlockSearch(2, 2, block=1, rollouts=2, calibrated=True)
    found, _ = answers(lm, rewards, search, 3, calibration=calibration)
    for one in found:
        assert one.quantiles is not None
        assert one.quantiles[one.index] == max(one.quantiles)
    with pytest.raises(ValueError, match="looks at quantiles"):
        answers(lm, rewards, search, 3)


def test_the_same_seed_gives_the_same_search(lm, rewards):
    for procedure in (BlockSearch(2, 2, block=1), BlockSearch(3, 1, BETA, block=1), TreeSearch(3)):
        first, second = (answers(lm, rewards, procedure, 10, seed=5)[0] for _ in range(2))
        assert first == second


def test_whole_blocks_run_on_what_only_samples():
    table = TabularPolicy(("x",), (("a", "b"),), np.array([[0.5, 0.5]]))
    reward = Told(TabularLM.random(("x",), ("a", "b"), 1, np.random.default_rng(0)), [[0, 1, 2]])
    for make in (BlockSearch, TreeSearch):
        (one,) = decode(table, prompts(1), reward, make(block=None), rng=np.random.default_rng(0))
        assert one.text == "b"
        with pytest.raises(TypeError, match="continue_from"):
            decode(table, prompts(1), reward, make(block=2), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": True}, "width is True"),
        ({"expand": 0}, "expand is 0"),
        ({"expand": 1.5}, "expand is 1.5"),
        ({"block": 0}, "block is 0"),
        ({"rollouts": -1}, "rollouts is -1"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": float("nan")}, "beta is nan"),
    ],
)
def test_counts_and_beta_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        BlockSearch(**wrong)


def test_wrong_combinations_are_refused(lm, rewards):
    with pytest.raises(ValueError, match="choose one"):
        BlockSearch(value=TabularValue.mean(lm, rewards), rollouts=2)
    with pytest.raises(ValueError, match="expansions is 0"):
        TreeSearch(expansions=0)
    other = TabularLM.random(("x",), ("c", "d"), 3, np.random.default_rng(0))
    guided = BlockSearch(value=TabularValue.mean(other, rewards))
    with pytest.raises(ValueError, match="vocabulary"):
        decode(lm, prompts(1), Told(lm, rewards), guided, rng=np.random.default_rng(0))


def test_tilting_twice_is_warned_of(lm, rewards):
    """Of a policy tilted by the reward already, and of one steered by it; never by another."""
    twice = lm.tilt(rewards, 0.5, aligned=Alignment("told", 0.5))
    soft = TabularValue.soft(lm, rewards, 0.5)
    steered = controlled(lm, soft, 0.5, aligned=Alignment("told", 0.5))
    particles, rng = BlockSearch(2, 2, 1.0, block=1), np.random.default_rng(0)
    for policy in (twice, steered):
        with pytest.warns(UserWarning, match=r"one tilt at β = 0\.333"):
            decode(policy, prompts(1), Told(lm, rewards), particles, rng=rng)
    with pytest.warns(UserWarning, match="no tilt of either kind"):
        dataclasses.replace(particles, calibrated=True).check(twice, Told(lm, rewards))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = lm.tilt(rewards, 0.5, aligned=Alignment("another", 0.5))
        decode(other, prompts(1), Told(lm, rewards), particles, rng=rng)
        decode(twice, prompts(1), Told(lm, rewards), BlockSearch(2, 2, block=1), rng=rng)
    with pytest.raises(ValueError, match="the same"):
        controlled(lm, soft, 0.4, aligned=Alignment("told", 0.5))


def test_steered_twice_it_says_the_beta_of_both(lm, rewards):
    once = lm.tilt(rewards, 1.0, aligned=Alignment("told", 1.0))
    soft = TabularValue.soft(once, rewards, 1.0)
    with pytest.warns(UserWarning, match=r"the value tilts it .* one tilt at β = 0\.5"):
        twice = controlled(once, soft, 1.0, aligned=Alignment("told", 1.0))
    everything = [[lm.response(ids, 0.0) for ids in lm.sequences]] * len(lm.prompts)
    assert twice.aligned == Alignment("told", 0.5)
    masses = np.exp(twice.log_prob(lm.prompts, everything))
    assert np.allclose(masses, lm.tilt(rewards, 0.5).masses, atol=1e-12)
    assert controlled(once, soft, 1.0).aligned == once.aligned


@pytest.mark.parametrize("search", [BlockSearch(2, 2, block=1), TreeSearch(4, 4, block=1)])
def test_a_reward_that_is_no_number_is_refused(lm, rewards, search):
    reward = Told(lm, rewards, broken=("a", "b", ""))
    with pytest.raises(ValueError, match=r"the reward says nan of '[ab]?', which answers"):
        decode(lm, prompts(1), reward, search, rng=np.random.default_rng(0))
