"""Win rates of decoded answers: unbiased against exact laws, whatever the procedure."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

from infalign import evaluation
from infalign.decoding import Budget
from infalign.decoding.blockwise import BlockwiseBestOfN
from infalign.decoding.mcmc import MCMC, RewardTilt
from infalign.decoding.voting.majority import MajorityVote
from infalign.evaluation import (
    Answers,
    answers_from_samples,
    decoded_answers,
    decoded_win_rate,
    estimate,
)
from infalign.policies import TabularLM, TabularPolicy
from infalign.prompts import Prompt
from infalign.quantile.atoms import voting
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN, SoftBestOfN

P = 400
PROMPTS = [Prompt(f"id{p}", f"x{p}") for p in range(P)]
TEXTS = tuple(f"y{c}" for c in range(4))
VALUES = np.array([0.3, -1.0, 2.0, 0.9])
OURS, THEIRS = np.array([0.1, 0.4, 0.3, 0.2]), np.array([0.3, 0.3, 0.2, 0.2])


class Value:
    """What a response is worth, told from its text."""

    name = "value"

    def __call__(self, prompts, responses):
        return np.array([[VALUES[int(text[1:])] for text in row] for row in responses])


def table(masses):
    return TabularPolicy(tuple(p.text for p in PROMPTS), (TEXTS,) * P, np.tile(masses, (P, 1)))


def stored(masses, m, seed):
    rng = np.random.default_rng(seed)
    responses = table(masses).sample([p.text for p in PROMPTS], m, rng)
    return responses, Value()([], [[r.text for r in row] for row in responses])


def win(ours, theirs, values=VALUES):
    """W of two laws on the same responses."""
    return float(ours @ ((1 + np.sign(values[:, None] - values)) / 2) @ theirs)


def test_all_subsets_are_the_estimator_of_rank_procedures():
    procedure, rng = BestOfN(3), np.random.default_rng(0)
    (a, r), (b, s) = stored(OURS, 6, 1), stored(THEIRS, 5, 2)
    ours = answers_from_samples(PROMPTS, a, r, procedure, rng=rng)
    theirs = answers_from_samples(PROMPTS, b, s, procedure, rng=rng)
    assert ours.rewards.shape == (P, 20)
    expected = evaluation.win_rate_samples(r, s, procedure)
    np.testing.assert_allclose(decoded_win_rate(ours, theirs), expected, atol=1e-12)


def exact_soft(masses, quantiles, n, temperature):
    weights = np.exp(quantiles / temperature)
    law = np.zeros(4)
    for drawn in np.ndindex(*(4,) * n):
        chosen = weights[list(drawn)] / weights[list(drawn)].sum()
        np.add.at(law, list(drawn), math.prod(masses[list(drawn)]) * chosen)
    return law


def sampled(procedure, calibration=None):
    answers = []
    for seed, masses in enumerate((OURS, THEIRS)):
        responses, rewards = stored(masses, 2 * procedure.candidates, seed)
        answers.append(
            answers_from_samples(
                PROMPTS,
                responses,
                rewards,
                procedure if calibration else MajorityVote(procedure.candidates),
                calibration=calibration,
                subsets=40,
                rng=np.random.default_rng(seed),
            )
        )
    return estimate(decoded_win_rate(*answers))


def test_votes_and_soft_choices_are_measured_without_bias():
    """|z| > 4.5 over 400 prompts: false alarms of 1e-5 each; measured at most 1.0."""
    vote = voting.MajorityVote(3)
    found = sampled(vote)
    exact = win(vote.decoded_masses(OURS), vote.decoded_masses(THEIRS))
    assert abs(found.value - exact) < 4.5 * found.se
    soft, calibrators = SoftBestOfN(2, 0.2), np.tile(np.repeat(VALUES, [1, 2, 2, 1]), (P, 1))
    calibration = EmpiricalCalibration(tuple(p.id for p in PROMPTS), calibrators)
    u = calibration(["id0"], VALUES[None])[0]
    found = sampled(soft, calibration)
    exact = win(*(exact_soft(masses, u, 2, 0.2) for masses in (OURS, THEIRS)))
    assert abs(found.value - exact) < 4.5 * found.se
    assert found.se < 0.02


def test_drawing_the_same_sample_twice_would_be_biased():
    """Negative control: best of 4 with replacement against one answer; measured: z = −8.9."""
    rng, n = np.random.default_rng(0), 4
    (_, r), (_, s) = stored(OURS, n, 1), stored(THEIRS, 8, 2)
    best = r[:, rng.integers(n, size=(60, n))].max(-1)
    sign = np.sign(best[:, :, None] - s[:, None, :])
    found, order = estimate((1 + sign).mean((1, 2)) / 2), np.argsort(VALUES)
    law = np.diff(np.cumsum(OURS[order]) ** n, prepend=0)
    exact = win(law, THEIRS[order], VALUES[order])
    assert abs(found.value - exact) > 4.5 * found.se


LM = TabularLM.random([p.text for p in PROMPTS[:1]], ("a", "b"), 3, np.random.default_rng(1))


class Said:
    name = "said"

    def __call__(self, prompts, responses):
        return np.array([[self.of(text) for text in row] for row in responses])

    @staticmethod
    def of(text):
        return math.sin(1 + 3 * sum((1 + "ab".index(c)) * 3**i for i, c in enumerate(text)))


@dataclasses.dataclass(frozen=True)
class Everywhere:
    """The same table of tokens at every prompt."""

    lm: TabularLM
    name: str = "everywhere"
    fingerprint: str = ""

    @property
    def sampling(self):
        return self.lm.sampling

    def sample(self, prompts, k, rng):
        return self.lm.sample(["x0"] * len(prompts), k, rng)

    def continue_from(self, prompts, beginnings, k, rng, *, limit=None):
        return self.lm.continue_from(["x0"] * len(prompts), beginnings, k, rng, limit=limit)


def chain_law(masses, beta, rounds):
    """π·Pᵗ of the Metropolis–Hastings chain that rewrites ends."""
    texts, ids = LM.texts(), LM.sequences
    rewards = np.array([Said.of(text) for text in texts])
    p = np.zeros((len(ids), len(ids)))
    for i, y in enumerate(ids):
        for kept in range(len(y)):
            same = np.array([new[:kept] == y[:kept] for new in ids])
            length = np.array([len(new) for new in ids])
            accept = np.minimum(1, np.exp((rewards - rewards[i]) / beta) * len(y) / length)
            p[i] += same * masses / masses[same].sum() * accept / len(y)
        p[i, i] += 1 - p[i].sum()
    for _ in range(rounds):
        masses = masses @ p
    return masses, rewards


def test_chains_are_measured_without_bias():
    """Three answers to each of 400 prompts; |z| > 4.5 has false alarms of 1e-5."""
    other = LM.tilt(np.array([[float(len(text)) for text in LM.texts()]]), 1.0)
    sides = [
        decoded_answers(
            Everywhere(lm),
            PROMPTS,
            Said(),
            MCMC(RewardTilt(0.5), rounds=3),
            repeats=3,
            rng=np.random.default_rng(seed),
        )
        for seed, lm in enumerate((other, LM))
    ]
    (ours, rewards), (theirs, _) = (chain_law(lm.masses[0], 0.5, 3) for lm in (other, LM))
    found, exact = estimate(decoded_win_rate(*sides)), win(ours, theirs, rewards)
    assert abs(found.value - exact) < 4.5 * found.se
    assert abs(exact - 0.5) > 4.5 * found.se, "the two sides can be told apart"
    assert sides[0].budget.responses == 4
    assert decoded_win_rate(sides[0], sides[0].judged_by(Said())).shape == (P,)


def test_many_answers_are_compared_without_a_table_of_all_pairs():
    """The same number as over all pairs; measured: 0.07 MB where their table took 38."""
    rng = np.random.default_rng(0)
    ours, theirs = (
        Answers(tuple(PROMPTS[:20]), (), rng.integers(9, size=(20, m)).astype(float), Budget(1, 1))
        for m in (400, 300)
    )
    tracemalloc.start()
    found = decoded_win_rate(ours, theirs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sign = np.sign(ours.rewards[:, :, None] - theirs.rewards[:, None, :])
    np.testing.assert_allclose(found, (1 + sign).mean((1, 2)) / 2, atol=1e-12)
    assert peak < 2 * ours.rewards.nbytes + theirs.rewards.nbytes + 1e6


def test_whole_responses_are_drawn_once_and_answer_often():
    answers = decoded_answers(
        table(OURS), PROMPTS[:3], Value(), MajorityVote(2), repeats=3, rng=np.random.default_rng(0)
    )
    assert answers.rewards.shape == (3, 15), "every pair of six samples"
    assert answers.budget.responses == 2


def test_what_cannot_be_measured_is_refused():
    responses, rewards = stored(OURS, 2, 0)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="majority-of-3 draws 3 responses and there are 2"):
        answers_from_samples(PROMPTS, responses, rewards, MajorityVote(3), rng=rng)
    with pytest.raises(ValueError, match="go on from a beginning"):
        answers_from_samples(PROMPTS, responses, rewards, BlockwiseBestOfN(2, 1), rng=rng)
    with pytest.raises(ValueError, match="repeats is 0"):
        decoded_answers(table(OURS), PROMPTS, Value(), BestOfN(2), repeats=0, rng=rng)
    with pytest.raises(ValueError, match="not scored"):
        answers_from_samples(PROMPTS, responses, np.nan * rewards, BestOfN(2), rng=rng)
    one, two = (
        decoded_answers(table(OURS), some, Value(), BestOfN(1), rng=rng)
        for some in (PROMPTS[:2], PROMPTS[1:3])
    )
    with pytest.raises(ValueError, match="other prompts"):
        decoded_win_rate(one, two)
