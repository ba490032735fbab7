"""A language model's responses written from outside: laws as by teacher forcing, rows as beams."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import CausalLM  # noqa: E402
from infalign.protocols import Sampling, TokenStream  # noqa: E402

PROMPTS = ["the film is", "a", "it is a lazy excuse"]
LAW = Sampling(temperature=0.8, max_new_tokens=8, stop=('"',))


def law_of(lm, prompt, tokens):
    """The next-token law after `tokens`, through the whole model."""
    read = torch.tensor([[*lm.codec.encode(prompt), *tokens]])
    with torch.no_grad():
        logits = lm.module(input_ids=read).logits[0, -1].double()
    return torch.log_softmax(logits / lm.sampling.temperature, -1).numpy()


def assert_laws(stream, lm, rows):
    found = stream.log_law()
    assert (found.dtype, found.shape) == (np.float64, (len(rows), len(lm.head.weight)))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-12)
    expected = [law_of(lm, prompt, tokens) for prompt, tokens in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def shuffled(stream, lm, rows, seed=0):
    """Six times: drop, repeat and reorder rows at random, append random tokens; laws each time."""
    rng = np.random.default_rng(seed)
    for _ in range(6):
        picked = rng.integers(0, len(rows), rng.integers(1, 6)).tolist()
        tokens = rng.integers(20, 60, len(picked)).tolist()
        stream.extend(picked, tokens)
        rows = [
            (rows[place][0], (*rows[place][1], token))
            for place, token in zip(picked, tokens, strict=True)
        ]
        assert_laws(stream, lm, rows)
    return rows


def test_laws_are_teacher_forced_however_rows_move(trained_lm):
    lm = trained_lm(LAW)
    stream = lm.stream(PROMPTS)
    assert isinstance(stream, TokenStream)
    rows = [(prompt, ()) for prompt in PROMPTS]
    assert_laws(stream, lm, rows)
    rows = shuffled(stream, lm, rows)
    other = [(prompt, tokens[::-1]) for prompt, tokens in rows]
    with pytest.raises(AssertionError):
        assert_laws(stream, lm, other)  # the negative control: another order of tokens


def test_a_stream_starts_after_beginnings(trained_lm):
    lm = trained_lm(LAW)
    begun = [(30, 31), (), (40,)]
    stream = lm.stream(PROMPTS, begun)
    assert_laws(stream, lm, list(zip(PROMPTS, begun, strict=True)))
    stream.extend([0, 0, 2], [33, 34, 35])
    assert_laws(
        stream, lm, [(PROMPTS[0], (30, 31, 33)), (PROMPTS[0], (30, 31, 34)), (PROMPTS[2], (40, 35))]
    )


def test_a_cache_that_cannot_be_moved_is_read_anew(tokenizer):
    """A sliding window of five tokens."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), num_hidden_layers=3, hidden_size=32, intermediate_size=48,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=5,
        initializer_range=0.3, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(config).eval()
    lm = CausalLM(model, tokenizer, LAW, dtype="float32")
    stream = lm.stream(PROMPTS)
    rows = shuffled(stream, lm, [(prompt, ()) for prompt in PROMPTS])
    ends = [(*tokens, lm.tokenizer.eos_token_id) for _, tokens in rows]
    responses = [[lm.response(tokens, 0.0)] for tokens in ends]
    # and what the laws say of a whole response is what the policy says
    streamed = lm.stream([prompt for prompt, _ in rows])
    total = np.zeros(len(rows))
    for t in range(len(ends[0])):
        law = streamed.log_law()
        tokens = [tokens[t] for tokens in ends]
        total += law[np.arange(len(rows)), tokens]
        streamed.extend(range(len(rows)), tokens)
    np.testing.assert_allclose(lm.log_prob([p for p, _ in rows], responses)[:, 0], total, atol=5e-5)


def test_a_stream_of_the_reference_stays_the_reference(trained_lm, make_lm):
    lm, plain = trained_lm(LAW), make_lm(LAW)
    with lm.reference():
        stream = lm.stream(PROMPTS)
    own = lm.stream(PROMPTS)
    for one in (stream, own):
        one.extend([0, 1, 2], [30, 31, 32])
    rows = [(prompt, (token,)) for prompt, token in zip(PROMPTS, (30, 31, 32), strict=True)]
    assert_laws(stream, plain, rows)
    assert_laws(own, lm, rows)
    assert np.abs(stream.log_law() - own.log_law()).max() > 0.1


def test_vocabularies_are_told_apart(make_lm, tiny_llama, tokenizer):
    lm = make_lm(LAW)
    assert lm.vocabulary == make_lm(LAW, seed=1).vocabulary  # other weights, the same tokens
    larger = CausalLM(tiny_llama(len(tokenizer) + 4), tokenizer, LAW, dtype="float32")
    assert lm.vocabulary != larger.vocabulary


def test_what_cannot_be_extended_is_refused(make_lm):
    lm = make_lm(Sampling(temperature=0.8, max_new_tokens=2))
    stream = lm.stream(PROMPTS)
    for rows, tokens, words in (
        ([], [], "at least one row"),
        ([0, 1], [5], "2 rows came with 1 tokens"),
        ([3], [5], "rows 0 to 2"),
        ([0], [10_000], "knows 0 to"),
    ):
        with pytest.raises(ValueError, match=words):
            stream.extend(rows, tokens)
    with pytest.raises(ValueError, match="no prompt"):
        lm.stream([])
    longest = max(range(3), key=lambda i: len(lm.codec.encode(PROMPTS[i])))
    stream.extend([longest], [30])
    stream.extend([0], [30])
    with pytest.raises(ValueError, match="max_new_tokens"):
        stream.extend([0], [30])
