"""What the reference answers: as many answers as are asked for, and found once."""

import sys
from pathlib import Path

import numpy as np
import pytest

from infalign.decoding import Selection, repeating
from infalign.decoding.mcmc import MCMC, RewardTilt
from infalign.decoding.voting.majority import MajorityVote
from infalign.policies import SoftmaxLM, TabularLM
from infalign.prompts import Prompt
from infalign.quantile.procedures import BestOfN
from infalign.training import Problem, RawReward, opponents
from infalign.training.opponents import opponents_of

sys.path.insert(0, str(Path(__file__).parent))
from tables import lines, rollouts_of, table

MASSES = np.array([0.1, 0.4, 0.3, 0.2])
REWARDS = np.array([0.3, -1.0, 2.0, 0.9])
LM = TabularLM.random(("x0", "x1"), ("a", "b"), 3, np.random.default_rng(1))


class Lookup:
    name = "lookup"

    def __call__(self, prompts, responses):
        return np.array([[REWARDS[int(text[1:])] for text in row] for row in responses])


class Length:
    name = "length"

    def __call__(self, prompts, responses):
        return np.array([[float(len(text)) for text in row] for row in responses])


def stored(*counts):
    """A table and a problem on it with so many stored samples of each response."""
    rollouts = rollouts_of(np.array([counts]))
    rewards = Lookup()(["x0"], [[r.text for r in rollouts[0]]])
    return table(MASSES[None]), Problem(
        lines(1), RawReward(Lookup(), ("id0",), rewards), 0.05, rollouts
    )


def chains():
    prompts = [Prompt(f"id{p}", f"x{p}") for p in range(2)]
    rewards = RawReward(Length(), ("id0", "id1"), np.array([[0.0, 1.0]] * 2))
    return SoftmaxLM(LM), Problem(prompts, rewards, 0.2)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("count", [1, 10, 32, 100])
@pytest.mark.parametrize("procedure", [MajorityVote, lambda n: Selection(BestOfN(n))])
def test_there_are_as_many_as_asked_for(procedure, n, count):
    """Before: 8 votes by 7 of the 8 stored samples, and a single one by 8."""
    policy, problem = stored(1, 3, 2, 2)
    found = opponents_of(procedure(n), policy, problem, count, None, 3)
    assert len(found.rewards["id0"]) >= count


def test_stored_samples_answer_where_they_are_enough(monkeypatch):
    policy, problem = stored(4, 16, 12, 8)
    monkeypatch.setattr(policy, "sample", None)
    assert len(opponents_of(MajorityVote(8), policy, problem, 32, None, 3).rewards["id0"]) == 40


def test_opponents_of_a_chain_are_found_once_and_not_all_at_once(tmp_path, monkeypatch):
    policy, problem = chains()
    chain, given = MCMC(RewardTilt(0.5), rounds=2), (4, tmp_path, 3)
    monkeypatch.setattr(repeating, "AT_ONCE", 3)
    widest, sample = [], policy.sample
    monkeypatch.setattr(
        policy,
        "sample",
        lambda prompts, *more: widest.append(len(prompts)) or sample(prompts, *more),
    )
    one = opponents_of(chain, policy, problem, *given)
    assert max(widest) == 3
    monkeypatch.setattr(opponents, "decode_repeatedly", None)
    two = opponents_of(chain, policy, problem, *given)
    np.testing.assert_array_equal(one.rewards["id1"], two.rewards["id1"])
    assert one.rewards["id0"].shape == (4,)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (MCMC(RewardTilt(0.5), rounds=2, chains=2), "another procedure"),
        (MCMC(RewardTilt(0.5), rounds=2, choose="vote", extract=str.strip), "another procedure"),
    ],
)
def test_those_of_another_procedure_of_the_same_name_are_refused(other, message, tmp_path):
    """Before: they were taken for this one's."""
    policy, problem = chains()
    chain = MCMC(RewardTilt(0.5), rounds=2)
    assert other.name == chain.name
    opponents_of(chain, policy, problem, 4, tmp_path, 3)
    with pytest.raises(ValueError, match=message):
        opponents_of(other, policy, problem, 4, tmp_path, 3)


def test_those_of_other_prompts_are_refused(tmp_path):
    policy, problem = chains()
    chain = MCMC(RewardTilt(0.5), rounds=2)
    opponents_of(chain, policy, problem, 4, tmp_path, 3)
    with pytest.raises(ValueError, match="another set of prompts"):
        opponents_of(chain, policy, problem.select([0]), 4, tmp_path, 3)
