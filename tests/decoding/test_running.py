"""Who runs text procedures serves equal wishes together, and refuses what cannot work."""

import dataclasses
from typing import final

import numpy as np
import pytest

from infalign.decoding import Budget, Decoded, Draw, Score, TextProcedure, budget_of, decode
from infalign.policies import TabularLM, TabularPolicy
from infalign.prompts import Prompt
from infalign.quantile.calibration import EmpiricalCalibration

LM = TabularLM.random(tuple("vwxyz"), ("a", "b"), 3, np.random.default_rng(0))
PROMPTS = [Prompt(text, text) for text in LM.prompts]


class Length:
    name = "length"

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, responses):
        self.calls.append((list(prompts), [list(row) for row in responses]))
        return np.array([[float(len(text)) for text in row] for row in responses])


@final
@dataclasses.dataclass(frozen=True)
class UntilLong(TextProcedure):
    """Draws until a response has two letters: another number of rounds for each prompt."""

    @property
    def name(self):
        return "until long"

    def steps(self, prompt, rng):
        rounds, rewards = 0, [0.0]
        while rewards[0] < 2:
            responses = (yield Draw(1))[0]
            rewards = (yield Score((responses[0].text,))).rewards
            rounds += 1
        spent = Budget(rounds, 0)
        return Decoded(prompt.id, responses[0].text, 0, tuple(responses), (2.0,), spent)


@final
@dataclasses.dataclass(frozen=True)
class Further(TextProcedure):
    """One token, then another two beginnings with it."""

    @property
    def name(self):
        return "further"

    @property
    def needs_reward(self):
        return False

    @property
    def needs_beginnings(self):
        return True

    def steps(self, prompt, rng):
        first = (yield Draw(1, limit=1))[0][0]
        begun = () if first.finish_reason == "stop" else first.token_ids
        rows = yield Draw(3, (begun, begun))
        assert [len(row) for row in rows] == [3, 3]
        return Decoded(prompt.id, rows[0][0].text, 0, tuple(rows[0]), (0.0,) * 3)


def test_every_prompt_gets_its_own_answer_in_order():
    reward = Length()
    answers = decode(LM, PROMPTS, reward, UntilLong(), rng=np.random.default_rng(1))
    assert [one.prompt_id for one in answers] == list("vwxyz")
    assert all(len(one.text) >= 2 for one in answers)
    rounds = [one.budget.responses for one in answers]
    assert len(set(rounds)) > 1
    assert len(reward.calls) == max(rounds)  # one call for all prompts that are at the same point
    asked = sum(len(prompts) for prompts, _ in reward.calls)
    assert asked == sum(rounds) == 5 * budget_of(answers).responses


def test_the_same_seed_gives_the_same_answers():
    def answers(seed):
        return decode(LM, PROMPTS, Length(), UntilLong(), rng=np.random.default_rng(seed))

    assert answers(3) == answers(3)
    assert answers(3) != answers(4)


def test_beginnings_are_gone_on_from():
    for one in decode(LM, PROMPTS, None, Further(), rng=np.random.default_rng(2)):
        assert len({response.token_ids[:1] for response in one.candidates}) >= 1


def test_a_policy_that_cannot_go_on_is_refused():
    table = TabularPolicy(("x",), (("no", "yes"),), np.array([[0.5, 0.5]]))
    with pytest.raises(TypeError, match="continue_from"):
        decode(table, [Prompt("x", "x")], None, Further(), rng=np.random.default_rng(0))


def test_progress_counts_answers():
    seen = []
    decode(
        LM,
        PROMPTS,
        Length(),
        UntilLong(),
        progress=lambda done, of: seen.append((done, of)),
        rng=np.random.default_rng(5),
    )
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_missing_reward_is_said_before_anything_is_drawn():
    with pytest.raises(ValueError, match="needs a reward"):
        decode(LM, PROMPTS, None, UntilLong(), rng=np.random.default_rng(0))


def test_what_is_no_number_has_no_quantile():
    @final
    @dataclasses.dataclass(frozen=True)
    class Asks(TextProcedure):
        @property
        def name(self):
            return "asks"

        def steps(self, prompt, rng):
            found = yield Score(("a", "bb"))
            return Decoded(prompt.id, "", 0, (), (), details={"u": found.quantiles.tolist()})

    class Half:
        name = "half"

        def __call__(self, prompts, responses):
            return np.array([[np.nan, 2.0]] * len(prompts))

    calibration = EmpiricalCalibration(("x",), np.array([[1.0, 3.0]]))
    prompts = [Prompt("x", "x")]
    (one,) = decode(
        LM, prompts, Half(), Asks(), calibration=calibration, rng=np.random.default_rng(0)
    )
    assert np.isnan(one.details["u"][0])
    assert one.details["u"][1] == 0.5
