"""Decoding on text tells the same story as the procedure does on laws."""

import dataclasses
from typing import final

import numpy as np
import pytest

from infalign.decoding import budget_of, decode, decode_stored
from infalign.evaluation import win_rate_samples
from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling
from infalign.quantile import procedures
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN, Identity, Procedure, WorstOfN, median_of

PROMPTS = [Prompt.from_text(f"question {i}") for i in range(2000)]


@dataclasses.dataclass
class Uniform:
    """Answers with a number in [0, 1), rounded to make ties; three tokens each."""

    digits: int = 6
    name: str = "uniform"
    fingerprint: str = "uniform"
    sampling: Sampling = dataclasses.field(default_factory=Sampling)

    def sample(self, prompts, k, rng):
        values = np.floor(rng.random((len(prompts), k)) * 10**self.digits) / 10**self.digits
        return [[Response(str(value), (1, 2, 3)) for value in row] for row in values]


class Number:
    name = "number"

    def __call__(self, prompts, responses):
        return np.array([[float(text) for text in row] for row in responses])


def values(decoded):
    return np.array([float(one.text) for one in decoded])


@pytest.mark.parametrize("procedure", [Identity(), BestOfN(4), WorstOfN(3), median_of(5)])
def test_answers_follow_the_decoded_law(procedure):
    """Kolmogorov–Smirnov distance of 2000 answers; 0.05 has a false alarm of 1e-4."""
    answers = decode(Uniform(), PROMPTS, Number(), procedure, rng=np.random.default_rng(0))
    at = np.sort(values(answers))
    empirical = (np.arange(len(at)) + 0.5) / len(at)
    assert np.abs(procedure.decoded_cdf(procedures.Uniform(), at) - empirical).max() < 0.05


def test_record_holds_everything_and_the_budget():
    answers = decode(Uniform(), PROMPTS[:5], Number(), BestOfN(4), rng=np.random.default_rng(1))
    for prompt, one in zip(PROMPTS, answers, strict=False):
        assert one.prompt_id == prompt.id
        assert one.text == one.candidates[one.index].text
        assert one.rewards[one.index] == max(one.rewards)
    budget = budget_of(answers)
    assert (budget.responses, budget.tokens) == (4, 12)


def test_equal_candidates_are_equally_likely():
    """All 4 tie: the index is uniform. Four counts of 500 ± 19; 100 is 5 errors away."""
    answers = decode(Uniform(digits=0), PROMPTS, Number(), BestOfN(4), rng=np.random.default_rng(2))
    counts = np.bincount([one.index for one in answers], minlength=4)
    assert np.abs(counts - 500).max() < 100


def test_the_same_seed_gives_the_same_answers():
    first, second = (
        decode(Uniform(), PROMPTS[:20], Number(), BestOfN(3), rng=np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == second


def test_nothing_to_choose_needs_no_reward():
    answers = decode(Uniform(), PROMPTS[:3], None, Identity(), rng=np.random.default_rng(4))
    assert all(np.isnan(one.rewards[0]) for one in answers)
    with pytest.raises(ValueError, match="needs a reward"):
        decode(Uniform(), PROMPTS[:3], None, BestOfN(2), rng=np.random.default_rng(4))


@final
class Nearest(Procedure):
    """Answers with the candidate whose quantile is nearest to ½: not a rank procedure."""

    name = "nearest"
    candidates = 3

    def decoded_density(self, mesh, density):
        raise NotImplementedError

    def select(self, quantiles, rng):
        return np.abs(quantiles - 0.5).argmin(axis=-1)


def test_procedures_that_see_quantiles_get_quantiles_or_are_refused():
    prompts = PROMPTS[:50]
    # All but one reference reward lie below 0.1, so ½ in quantiles is near 0.05 in rewards.
    reference = np.tile(np.append(np.linspace(0, 0.1, 99), 1.0), (50, 1))
    calibration = EmpiricalCalibration(tuple(prompt.id for prompt in prompts), reference)
    answers = decode(
        Uniform(), prompts, Number(), Nearest(), calibration=calibration,
        rng=np.random.default_rng(5),
    )  # fmt: skip
    for one in answers:
        distance = np.abs(calibration([one.prompt_id], np.array([one.rewards])) - 0.5)[0]
        assert distance[one.index] == distance.min()
    with pytest.raises(ValueError, match="looks at quantiles"):
        decode(Uniform(), prompts, Number(), Nearest(), rng=np.random.default_rng(5))


def test_stored_samples_decode_to_the_estimated_win_rate():
    """Mean win of decoded answers against the subset estimator: 4 standard errors."""
    rng = np.random.default_rng(6)
    a = [[Response(str(x)) for x in row] for row in rng.random((2000, 8)) ** 0.5]
    b = rng.random((2000, 8))
    rewards = np.array([[float(r.text) for r in row] for row in a])
    stored_b = [[Response(str(x)) for x in row] for row in b]
    ours = values(decode_stored(PROMPTS, a, rewards, BestOfN(4), rng))
    theirs = values(decode_stored(PROMPTS, stored_b, b, BestOfN(4), rng))
    expected = win_rate_samples(rewards, b, BestOfN(4)).mean()
    assert abs((ours > theirs).mean() - expected) < 4 * 0.5 / np.sqrt(2000)
    with pytest.raises(ValueError, match="draws 9 candidates"):
        decode_stored(PROMPTS, a, rewards, BestOfN(9), rng)


def test_rewards_that_rank_nothing_are_refused():
    def missing(prompts, responses):
        return np.full((len(prompts), len(responses[0])), np.nan)

    def short(prompts, responses):
        return np.zeros((len(prompts), 1))

    for function, message in ((missing, "candidate 0 to prompt"), (short, "shape")):
        function.name = "odd"
        with pytest.raises(ValueError, match=message):
            decode(Uniform(), PROMPTS[:2], function, BestOfN(2), rng=np.random.default_rng(7))
