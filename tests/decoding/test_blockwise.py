"""Blockwise best-of-N follows its exact law on a table, and with one block it is best-of-N."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from infalign.decoding import BlockwiseBestOfN, Selection, decode
from infalign.policies.tabular_lm import TabularLM
from infalign.prompts import Prompt
from infalign.protocols import Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN

CAP, N, ANSWERS = 4, 3, 6000
FALSE_ALARM = 1e-5
LM = TabularLM.random(("x",), ("a", "b", "c"), CAP, np.random.default_rng(0))


class Grades:
    """A number for each text, with some ties: a hash of it in grades of 0.1."""

    name = "grades"

    def __call__(self, prompts, responses):
        return np.array([[grade(text) for text in row] for row in responses])


def grade(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) % 10 / 10


def continuations(beginning, block):
    """What may follow, whole and with its mass: ended, cut by the cap, or `block` tokens on."""
    law = LM.laws[0, LM.place(beginning)]
    for token, mass in enumerate(law):
        after = (*beginning, token)
        if token == LM.end or len(after) == CAP or block == 1:
            yield after, mass
        else:
            yield from ((more, mass * rest) for more, rest in continuations(after, block - 1))


def has_ended(tokens):
    return tokens[-1] == LM.end or len(tokens) == CAP


def chances_of_being_kept(atoms, n):
    """Of each (response, mass, worth): F(worth)^n − F₋(worth)^n, shared among equals by mass."""
    masses, worths = (np.array(column) for column in list(zip(*atoms, strict=True))[1:])
    below = (worths[:, None] > worths) @ masses
    upto = (worths[:, None] >= worths - 1e-12) @ masses
    return masses * (upto**n - below**n) / (upto - below)


def exact_law(block, n=N, rollouts=0):
    """P(answer) over the sequences, block by block; for 0, 1 or infinitely many rollouts."""
    answer = np.zeros(len(LM.sequences))

    def go_on(beginning, reached):
        atoms = []
        for tokens, mass in continuations(beginning, block):
            atoms += [(tokens, mass * chance, worth) for chance, worth in worths(tokens)]
        for (tokens, *_), kept in zip(atoms, chances_of_being_kept(atoms, n), strict=True):
            arrived[tokens] = arrived.get(tokens, 0.0) + reached * kept

    def worths(tokens):
        """Chance and size of what an unfinished text is taken to be worth."""
        if not rollouts or has_ended(tokens):
            return [(1.0, grade(LM.text(tokens)))]
        ends = [(mass, grade(LM.text(more))) for more, mass in continuations(tokens, CAP)]
        return ends if rollouts == 1 else [(1.0, sum(mass * worth for mass, worth in ends))]

    waiting, arrived = {(): 1.0}, {}
    while waiting:
        arrived = {}
        for beginning, reached in waiting.items():
            go_on(beginning, reached)
        for tokens, mass in arrived.items():
            if has_ended(tokens):
                answer[LM.places[tokens]] += mass
        waiting = {tokens: mass for tokens, mass in arrived.items() if not has_ended(tokens)}
    return answer


def answered(procedure, answers=ANSWERS, seed=0, policy=LM, prompt="x"):
    prompts = [Prompt.from_text(prompt)] * answers
    return decode(policy, prompts, Grades(), procedure, rng=np.random.default_rng(seed))


def p_value(decoded, law):
    """G-test of the answers' counts; sequences expected less than 5 times are pooled."""
    counts = np.zeros(len(law))
    for one in decoded:
        counts[LM.places[one.candidates[one.index].token_ids]] += 1
    expected = law * len(decoded)
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    pooled = np.append(expected[~rare], expected[rare].sum())
    return stats.power_divergence(observed[pooled > 0], pooled[pooled > 0], lambda_=0).pvalue


# --- the law ---


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_law_is_exact_block_by_block(block):
    """6000 answers among 121 sequences, false alarm 1e-5; neighbours are told apart."""
    law, decoded = exact_law(block), answered(BlockwiseBestOfN(N, block))
    assert law.sum() == pytest.approx(1)
    assert p_value(decoded, law) > FALSE_ALARM
    for wrong in (exact_law(CAP), exact_law(block, n=N + 1), LM.masses[0]):
        assert p_value(decoded, wrong) < FALSE_ALARM


def test_the_enumerated_law_of_one_block_is_that_of_best_of_n():
    """The oracle against the closed form: mass·(F^N − F₋^N)/p of each sequence, to rounding."""
    rewards, masses = np.array([grade(text) for text in LM.texts()]), LM.masses[0]
    upto = (rewards[:, None] >= rewards) @ masses
    below = (rewards[:, None] > rewards) @ masses
    closed = masses * (BestOfN(N).rank_cdf(upto) - BestOfN(N).rank_cdf(below)) / (upto - below)
    np.testing.assert_allclose(exact_law(CAP), closed, atol=1e-14)


def test_one_completion_says_what_a_beginning_is_worth():
    """With m = 1 the law is exact too; it is not the law of rewarding the beginning itself."""
    decoded = answered(BlockwiseBestOfN(N, 1, rollouts=1))
    assert p_value(decoded, exact_law(1, rollouts=1)) > FALSE_ALARM
    assert p_value(decoded, exact_law(1)) < FALSE_ALARM


def test_many_completions_choose_by_the_expected_reward():
    """m = 300 answers as if the expected reward were known, and not as one completion has it."""
    decoded = answered(BlockwiseBestOfN(N, 2, rollouts=300), 500)
    assert p_value(decoded, exact_law(2, rollouts=np.inf)) > FALSE_ALARM
    assert p_value(decoded, exact_law(2, rollouts=1)) < FALSE_ALARM


# --- one block is best-of-N ---


@pytest.mark.parametrize("block", [CAP, CAP + 7, None])
def test_with_the_whole_response_as_block_it_is_best_of_n_to_the_letter(block):
    blocks, whole = answered(BlockwiseBestOfN(N, block), 50), answered(Selection(BestOfN(N)), 50)
    for one, other in zip(blocks, whole, strict=True):
        assert (one.text, one.index, one.candidates) == (other.text, other.index, other.candidates)
        assert (one.rewards, one.budget) == (other.rewards, other.budget)
    fewer = answered(BlockwiseBestOfN(N, CAP - 1), 50)
    assert [one.text for one in fewer] != [one.text for one in whole]


@pytest.mark.parametrize("block", [6, None])
def test_on_a_language_model_too(make_lm, block):
    lm = make_lm(Sampling(temperature=0.8, max_new_tokens=6, stop=('"',)))
    prompts = [Prompt.from_text(text) for text in ("the film is", "a")] * 4
    one, other = (
        decode(lm, prompts, Grades(), procedure, rng=np.random.default_rng(0))
        for procedure in (BlockwiseBestOfN(N, block), BestOfN(N))
    )
    assert [a.text for a in one] == [a.text for a in other]
    assert [a.candidates[a.index].token_ids for a in one] == [
        a.candidates[a.index].token_ids for a in other
    ]


# --- the record ---


def require_honest_record(one, procedure):
    """Blocks follow each other, each best is gone on from, and every token is paid for once."""
    starts, n = one.details["starts"], procedure.n
    assert len(one.candidates) == len(one.rewards) == len(starts) == n * one.details["blocks"]
    beginning, tokens = (), 0
    for first in range(0, len(starts), n):
        block = one.candidates[first : first + n]
        assert all(response.token_ids[: len(beginning)] == beginning for response in block)
        assert starts[first : first + n] == [len(beginning)] * n
        tokens += sum(len(response.token_ids) - len(beginning) for response in block)
        rewards = one.rewards[first : first + n]
        best = [r for r, worth in zip(block, rewards, strict=True) if worth == max(rewards)]
        if first + n == len(starts):
            assert one.candidates[one.index] in best
        else:
            beginning = one.candidates[first + n].token_ids[: starts[first + n]]
            assert beginning in {response.token_ids for response in best}
    assert one.budget.responses == len(starts)
    assert one.budget.tokens == tokens
    assert one.text == one.candidates[one.index].text
    assert one.candidates[one.index].finish_reason in ("stop", "length")


def test_the_record_holds_every_block_and_the_budget_is_new_tokens_only():
    decoded = answered(BlockwiseBestOfN(N, 1), 200)
    for one in decoded:
        require_honest_record(one, BlockwiseBestOfN(N, 1))
    assert max(one.details["blocks"] for one in decoded) == CAP
    whole = answered(BestOfN(N), 200)
    assert np.mean([one.tokens for one in decoded]) < N * CAP
    assert np.mean([one.tokens for one in whole]) <= N * CAP


def test_completions_are_paid_for():
    plain, asked = (answered(BlockwiseBestOfN(N, 1, m), 300) for m in (0, 2))
    for one in asked:
        own = sum(
            len(response.token_ids) - start
            for response, start in zip(one.candidates, one.details["starts"], strict=True)
        )
        begun = [r for r in one.candidates if r.finish_reason == "limit"]
        assert one.budget.responses == len(one.candidates) + 2 * len(begun)
        assert own + 2 * len(begun) <= one.budget.tokens <= own + 2 * CAP * len(begun)
    assert all(one.budget.responses == len(one.candidates) for one in plain)


@pytest.mark.parametrize("block", [None, 1, 2, 3, CAP, CAP + 1])
@pytest.mark.parametrize("rollouts", [0, 2])
def test_the_most_it_takes_is_what_the_longest_answers_take(block, rollouts):
    """On a policy that never ends by itself every answer takes the most, to the token."""
    endless = np.tile([0.5, 0.3, 0.2, 0.0], (1, len(LM.beginnings), 1))
    lm, procedure = TabularLM(("x",), LM.tokens, endless), BlockwiseBestOfN(N, block, rollouts)
    for one in answered(procedure, 5, policy=lm):
        assert one.budget == procedure.most_within(CAP)


def test_a_language_model_goes_on_block_by_block(make_lm):
    lm = make_lm(Sampling(temperature=0.8, max_new_tokens=6))
    prompts = [Prompt.from_text(text) for text in ("the film is", "a", "it is a lazy")]
    procedure = BlockwiseBestOfN(4, block=2)
    decoded = decode(lm, prompts, Grades(), procedure, rng=np.random.default_rng(0))
    for one in decoded:
        require_honest_record(one, procedure)
    assert max(one.details["blocks"] for one in decoded) == 3


def test_quantiles_are_reported_for_every_candidate():
    calibration = EmpiricalCalibration(
        (Prompt.from_text("x").id,), np.arange(10.0)[None] / 10 - 0.05
    )
    (one,) = decode(
        LM,
        [Prompt.from_text("x")],
        Grades(),
        BlockwiseBestOfN(N, 2),
        calibration=calibration,
        rng=np.random.default_rng(0),
    )
    np.testing.assert_allclose(one.quantiles, np.array(one.rewards) + 0.1, atol=0.051)


# --- bad input ---


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, float("nan"), float("inf")])
def test_counts_that_are_none_are_refused(bad):
    for settings in ({"n": bad}, {"n": 2, "block": bad}, {"n": 2, "block": 2, "rollouts": bad}):
        if settings.get("rollouts") == 0:
            continue
        with pytest.raises(ValueError, match="an integer ≥"):
            BlockwiseBestOfN(**settings)


def test_a_policy_that_cannot_go_on_is_refused_before_anything_is_sampled():
    table = LM.table()
    with pytest.raises(TypeError, match="goes on from the beginning"):
        answered(BlockwiseBestOfN(N, 2), 2, policy=table)
    assert len(answered(BlockwiseBestOfN(N), 2, policy=table)) == 2


def test_a_reward_that_is_no_number_is_refused():
    class Broken:
        name = "broken"

        def __call__(self, prompts, responses):
            return np.full((len(prompts), len(responses[0])), np.nan)

    for rollouts in (0, 2):
        with pytest.raises(ValueError, match="cannot be ranked"):
            decode(
                LM,
                [Prompt.from_text("x")],
                Broken(),
                BlockwiseBestOfN(N, 1, rollouts),
                rng=np.random.default_rng(0),
            )
