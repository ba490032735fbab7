"""Going on from beginnings: the law is that of whole responses, given how they begin."""

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from infalign.policies import CausalLM  # noqa: E402
from infalign.protocols import Continuer, LogitPolicy, Response, Sampling  # noqa: E402

PROMPTS = ["the film is", "a", "it is a lazy excuse", "the film is"]
LAW = Sampling(temperature=0.8, max_new_tokens=12, stop=('"',))
FLOAT32 = 2e-5


def rng(seed=0):
    return np.random.default_rng(seed)


def ids(rows):
    return [[response.token_ids for response in row] for row in rows]


def begun(responses):
    """More and more of each first response, never its last token."""
    firsts = [row[0].token_ids for row in responses]
    return [y[: (len(y) - 1) * place // len(firsts)] for place, y in enumerate(firsts)]


def log_laws(lm, context, tokens):
    """Next-token laws along `tokens` by teacher forcing through the whole model."""
    with torch.no_grad():
        logits = lm.module(input_ids=torch.tensor([[*context, *tokens]])).logits[0]
    return torch.log_softmax(logits[len(context) - 1 :].double() / lm.sampling.temperature, -1)


def test_it_is_a_continuer_and_shows_its_laws(make_lm):
    lm = make_lm()
    assert lm.tokenizer.eos_token_id in lm.stop_ids
    assert isinstance(lm, Continuer)
    assert isinstance(lm, LogitPolicy)


def test_an_empty_beginning_is_sampling(trained_lm):
    lm = trained_lm(LAW)
    found = lm.continue_from(PROMPTS, [()] * 4, 5, rng())
    assert found == lm.sample(PROMPTS, 5, rng())
    assert found != lm.sample(PROMPTS, 5, rng(1))
    assert lm.continue_from([], [], 3, rng()) == []


@pytest.mark.parametrize("rows", [2, 50])
@pytest.mark.parametrize("limit", [None, 1, 3])
def test_log_probs_are_those_of_the_new_tokens(trained_lm, rows, limit):
    lm = trained_lm(LAW, rows=rows)
    starts = begun(lm.sample(PROMPTS, 1, rng()))
    assert len({len(start) for start in starts}) > 2
    found = lm.continue_from(PROMPTS, starts, 6, rng(1), limit=limit)
    for prompt, start, row in zip(PROMPTS, starts, found, strict=True):
        for response in row:
            tokens, begins = response.token_ids, len(start)
            assert tokens[:begins] == start
            law = log_laws(lm, lm.codec.encode(prompt), tokens)
            expected = sum(float(law[t, tokens[t]]) for t in range(begins, len(tokens)))
            assert response.log_prob == pytest.approx(expected, abs=FLOAT32)


def test_caps_count_the_beginning_and_limits_the_new_tokens(trained_lm):
    lm = trained_lm(LAW)
    starts = begun(lm.sample(PROMPTS, 1, rng()))
    seen = set()
    for limit in (None, 2, 40):
        rows = lm.continue_from(PROMPTS, starts, 40, rng(), limit=limit)
        for start, row in zip(starts, rows, strict=True):
            for response in row:
                length, new = len(response.token_ids), len(response.token_ids) - len(start)
                ended = response.token_ids[-1] in lm.stop_ids
                reason = "stop" if ended else "length" if length == 12 else "limit"
                assert response.finish_reason == reason
                assert new <= min(limit or 12, 12 - len(start))
                assert ended or length == 12 or new == limit
                seen.add(reason)
    assert seen == {"stop", "length", "limit"}


def test_blocks_make_up_a_whole_response(trained_lm):
    """log π(y) is the sum over its blocks, each given those before."""
    lm = trained_lm(LAW)
    row = lm.continue_from(["a"], [()], 1, rng(), limit=2)[0]
    total = row[0].log_prob
    while row[0].finish_reason == "limit":
        row = lm.continue_from(["a"], [row[0].token_ids], 1, rng(), limit=2)[0]
        total += row[0].log_prob
    assert lm.log_prob(["a"], [row])[0, 0] == pytest.approx(total, abs=FLOAT32)


# --- by enumeration: six tokens, three places ----------------------------------------------------


@pytest.fixture
def six_tokens(tiny_llama):
    """A policy over `a` to `f`, `c` ending a response, and the law of its whole responses."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate("abcdef")}, unk_token="a"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="c", pad_token="c")
    law = Sampling(temperature=0.8, max_new_tokens=3)
    return CausalLM(tiny_llama(6), tokenizer, law, dtype="float32", rows=20_000)


def goodness(expected, responses):
    """p-value of a chi-square test; the possible are few and none is rare."""
    counts = dict.fromkeys(expected, 0)
    for response in responses:
        counts[response.token_ids] += 1
    wanted = np.array(list(expected.values())) * len(responses)
    common = wanted >= 5
    groups = [
        np.append(x[common], x[~common].sum()) for x in (np.array([*counts.values()]), wanted)
    ]
    return stats.chisquare(groups[0], groups[1] * groups[0].sum() / groups[1].sum()).pvalue


def test_ends_follow_the_law_given_the_beginning(six_tokens):
    """False-alarm rate 1e-4 by the threshold; the seed is fixed, so it passes or fails for good."""
    lm, start = six_tokens, (4,)
    context = lm.codec.encode("b e")
    every = [(4, 2), *((4, a, b) for a in (0, 1, 3, 4, 5) for b in range(6))]

    def law(context):
        table = {y: log_laws(lm, context, y) for y in every}
        return {
            y: np.exp(sum(float(t[i, y[i]]) for i in range(1, len(y)))) for y, t in table.items()
        }

    exact = law(context)
    assert sum(exact.values()) == pytest.approx(1, abs=1e-6)
    (found,) = lm.continue_from(["b e"], [start], 20_000, rng())
    assert goodness(exact, found) > 1e-4
    assert goodness(law(lm.codec.encode("b d")), found) < 1e-4  # negative control: another prompt


# --- where scoring starts ------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [True, False])
def test_starts_leave_out_the_beginning(trained_lm, packs):
    lm = trained_lm(LAW)
    lm._packs = packs
    rows = lm.sample(PROMPTS, 5, rng())
    starts = [[int(s) for s in rng(p).integers(0, [len(y.token_ids) + 1 for y in row])]
              for p, row in enumerate(rows)]  # fmt: skip
    found = lm.differentiable_log_prob(PROMPTS, rows, starts=starts)
    for p, prompt in enumerate(PROMPTS):
        for k, response in enumerate(rows[p]):
            law = log_laws(lm, lm.codec.encode(prompt), y := response.token_ids)
            expected = sum(float(law[t, y[t]]) for t in range(starts[p][k], len(y)))
            assert found[p, k].item() == pytest.approx(expected, abs=FLOAT32)
    zeros = [[0] * 5] * 4
    whole = lm.differentiable_log_prob(PROMPTS, rows)
    torch.testing.assert_close(lm.differentiable_log_prob(PROMPTS, rows, zeros), whole)
    assert (found - whole).abs().max() > 1  # negative control


def test_gradients_of_a_start_are_those_of_the_difference(trained_lm):
    """log π(y_≥s | y_<s) = log π(y) − log π(y_<s), so its gradient is the difference's."""
    lm = trained_lm(LAW)
    whole = lm.sample(["a"], 30, rng())[0]
    response = next(one for one in whole if len(one.token_ids) > 4)
    beginning = lm.response(response.token_ids[:3], 0.0)
    assert beginning.finish_reason == "limit"

    def gradient(response, starts=None):
        lm.module.zero_grad()
        lm.differentiable_log_prob(["a"], [[response]], starts).sum().backward()
        return torch.cat([p.grad.flatten() for p in lm.module.parameters() if p.requires_grad])

    difference = gradient(response) - gradient(beginning)
    found = gradient(response, [[3]])
    torch.testing.assert_close(found, difference, atol=1e-4 * float(found.abs().max()), rtol=0)


def test_starts_outside_a_response_are_refused(make_lm):
    lm = make_lm(LAW)
    rows = lm.sample(["a"], 2, rng())
    for starts, words in (([[0]], "one start"), ([[0, -1]], "is -1"), ([[0, 13]], "is 13")):
        with pytest.raises(ValueError, match=words):
            lm.differentiable_log_prob(["a"], rows, starts)


# --- what is refused -----------------------------------------------------------------------------


def test_a_beginning_that_nothing_can_follow_is_refused(make_lm):
    lm = make_lm(LAW)
    end = lm.tokenizer.eos_token_id
    for beginning, words in (
        ((5, end), "has ended"),
        ((5,) * 12, "length cap of 12"),
        ((5, 10_000), "knows those below"),
        ((5, -1), "knows those below"),
    ):
        with pytest.raises(ValueError, match=words):
            lm.continue_from(["a"], [beginning], 1, rng())
        with pytest.raises(ValueError, match=words):
            lm.stream(["a"], [beginning])
    with pytest.raises(ValueError, match="1 prompts came with 2 beginnings"):
        lm.continue_from(["a"], [(), ()], 1, rng())
    for k in (0, True, 1.5):
        with pytest.raises(ValueError, match="k is"):
            lm.continue_from(["a"], [()], k, rng())
    for limit in (0, True, -3):
        with pytest.raises(ValueError, match="limit is"):
            lm.continue_from(["a"], [()], 1, rng(), limit=limit)
    with pytest.raises(ValueError, match="context window"):
        lm.continue_from(["a film " * 40], [(5,)], 1, rng())


def test_a_response_that_breaks_off_is_scored_only_as_a_beginning(make_lm):
    lm = make_lm(LAW)
    assert np.isfinite(lm.log_prob(["a"], [[lm.response((5, 6), 0.0)]])).all()
    with pytest.raises(ValueError, match="breaks off"):
        lm.log_prob(["a"], [[Response("", (5, 6))]])
