"""Sampling in a batch that is kept full: each sample is what it would be alone."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import next_token, refill, slots  # noqa: E402
from infalign.policies.generation import generate_chunks, generate_in_batches  # noqa: E402
from infalign.policies.next_token import Head  # noqa: E402
from infalign.policies.refill import generate_refilled  # noqa: E402
from infalign.protocols import Sampling  # noqa: E402

VOCABULARY, STOPS, LENGTH = 40, (2, 7, 11, 12), 9
LENGTHS = (3, 30, 1, 3, 12)


class Spied:
    """A body that remembers the shapes it was given."""

    def __init__(self, model):
        self.body, self.reads, self.columns = model.get_decoder(), [], []

    def __call__(self, **inputs):
        mask = inputs["attention_mask"]
        self.reads.append((*inputs["input_ids"].shape, int(mask.sum())))
        if "past_key_values" in inputs:
            allotted = {layer.keys.shape[2] for layer in inputs["past_key_values"].layers}
            self.columns.append((mask.shape[1], *allotted))
        return self.body(**inputs)

    @property
    def steps(self):
        return [rows for rows, width, _ in self.reads if width == 1]


@pytest.fixture
def world(tiny_llama):
    """A body, its head, prompts of very different lengths, stop tokens."""
    model = tiny_llama(VOCABULARY)
    rng = np.random.default_rng(0)
    contexts = [tuple(rng.integers(0, VOCABULARY, n)) for n in LENGTHS]
    is_stop = torch.zeros(VOCABULARY, dtype=torch.bool)
    is_stop[list(STOPS)] = True
    return Spied(model), Head(model.lm_head.weight.detach()), contexts, is_stop


def uniforms(k, length=LENGTH, seed=1):
    return np.random.default_rng(seed).random((len(LENGTHS), k, length))


def assert_same(found, expected):
    assert [[ids for ids, _ in row] for row in found] == [
        [ids for ids, _ in row] for row in expected
    ]
    pairs = [[[nats for _, nats in row] for row in rows] for rows in (found, expected)]
    np.testing.assert_allclose(*pairs, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 4, 7, 100])
@pytest.mark.parametrize("k", [1, 6])
def test_refilled_rows_write_what_chunks_write(world, rows, k):
    """Prompts of 1 to 30 tokens; more samples of a prompt than rows; more rows than samples."""
    body, head, contexts, is_stop = world
    numbers = uniforms(k)
    found = generate_in_batches(body, head, contexts, numbers, 0.8, is_stop, rows)
    assert_same(found, generate_chunks(body, head, contexts, numbers, 0.8, is_stop, 100))
    assert len({len(ids) for row in found for ids, _ in row}) > 1  # ragged, or nothing is tested


def test_another_sample_s_numbers_would_be_seen(world):
    """The negative control of the above."""
    body, head, contexts, is_stop = world
    one, other = (
        generate_in_batches(body, head, contexts, numbers, 0.8, is_stop, 4)
        for numbers in (uniforms(2), uniforms(2)[:, ::-1].copy())
    )
    with pytest.raises(AssertionError):
        assert_same(one, other)


def test_small_prefills_change_nothing(world, monkeypatch):
    body, head, contexts, is_stop = world
    whole = generate_in_batches(body, head, contexts, uniforms(3), 0.8, is_stop, 4)
    monkeypatch.setattr(refill, "_PREFILL_TOKENS", 6)
    monkeypatch.setattr(next_token, "_DRAWN", 2)
    body.reads.clear()
    assert_same(generate_in_batches(body, head, contexts, uniforms(3), 0.8, is_stop, 4), whole)
    prefills = [(rows, read) for rows, width, read in body.reads if width > 1]
    assert prefills == [(2, 4), (1, 3), (1, 12), (1, 30)]


def test_the_batch_is_full_until_nothing_waits(world):
    """Steps needed: all tokens after the first, `rows` at a time, and the last ones' ends."""
    body, head, contexts, is_stop = world
    rows, k = 8, 16
    answers = generate_in_batches(body, head, contexts, uniforms(k), 0.8, is_stop, rows)
    later = sum(len(ids) - 1 for row in answers for ids, _ in row)
    full = [n for n in body.steps if n == rows]
    assert later / rows <= len(body.steps) <= math.ceil(later / rows) + LENGTH - 1
    assert len(full) >= len(body.steps) - (LENGTH - 1)
    body.reads.clear()
    generate_chunks(body, head, contexts, uniforms(k), 0.8, is_stop, rows)
    assert len(body.steps) > math.ceil(later / rows) + LENGTH - 1  # what chunks waste


def test_each_prompt_is_read_once(world):
    body, head, contexts, is_stop = world
    generate_in_batches(body, head, contexts, uniforms(12), 0.8, is_stop, 4)
    assert sum(read for _, width, read in body.reads if width > 1) == sum(LENGTHS)


def test_columns_are_allotted_as_they_are_needed(world):
    """With a cap far above any response, and with responses that all reach it."""
    body, head, contexts, is_stop = world
    length = 1000
    answers = generate_in_batches(body, head, contexts, uniforms(6, length), 0.8, is_stop, 8)
    longest = max(len(ids) for row in answers for ids, _ in row)
    assert 10 < longest < length / 4
    assert max(columns for _, columns in body.columns) <= 1.5 * (max(LENGTHS) + longest) + 32
    body.columns.clear()
    never = torch.zeros_like(is_stop)
    generate_in_batches(body, head, contexts, uniforms(1, length), 0.8, never, 8)
    for used, columns in body.columns:
        assert used <= columns <= 1.5 * used + 32
    needed = max(LENGTHS) + length - 1
    assert body.columns[-1] == (needed, needed)
    assert 3 < len({columns for _, columns in body.columns}) < 12  # copied a few times in all


def test_growing_changes_nothing(world, monkeypatch):
    """For longer prompts and for longer responses, while other rows are written."""
    body, head, contexts, is_stop = world
    numbers = uniforms(6, 40)
    whole = generate_chunks(body, head, contexts, numbers, 0.8, is_stop, 100)
    monkeypatch.setattr(slots, "_ROUND", 1)
    monkeypatch.setattr(refill, "_PREFILL_TOKENS", 6)
    body.columns.clear()
    assert_same(generate_in_batches(body, head, contexts, numbers, 0.8, is_stop, 4), whole)
    assert len({columns for _, columns in body.columns}) > 3


def test_one_token_needs_no_step(world):
    body, head, contexts, is_stop = world
    answers = generate_in_batches(body, head, contexts, uniforms(5, 1), 0.8, is_stop, 4)
    assert {len(ids) for row in answers for ids, _ in row} == {1}
    assert not body.steps


def test_all_may_end_at_once(world):
    """At the first token, and at the cap."""
    body, head, contexts, is_stop = world
    answers = generate_in_batches(
        body, head, contexts, uniforms(5), 0.8, torch.ones_like(is_stop), 4
    )
    assert {len(ids) for row in answers for ids, _ in row} == {1}
    assert not body.steps
    never = torch.zeros_like(is_stop)
    answers = generate_in_batches(body, head, contexts, uniforms(5), 0.8, never, 25)
    assert {len(ids) for row in answers for ids, _ in row} == {LENGTH}
    assert body.steps == [25] * (LENGTH - 1)


def test_a_cache_that_forgets_is_not_refilled(world):
    """A sliding window keeps no more than its last tokens: chunks, then, and the same answers."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    _, _, contexts, is_stop = world
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY, num_hidden_layers=3, hidden_size=32, intermediate_size=48,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(config).eval()
    body, head = Spied(model), Head(model.lm_head.weight.detach())
    numbers = torch.from_numpy(uniforms(2))
    assert generate_refilled(body, head, contexts, numbers, 1.0, is_stop, 4) is None
    answers = generate_in_batches(body, head, contexts, uniforms(2), 1.0, is_stop, 4)
    assert_same(answers, generate_chunks(body, head, contexts, uniforms(2), 1.0, is_stop, 1))


def test_a_trained_adapter_is_sampled_with_and_without(trained_lm, make_lm):
    sampling = Sampling(temperature=0.8, max_new_tokens=12, stop=('"',))
    prompts = ["the film is", "a", "it is a lazy excuse for a film"]
    lm, plain = trained_lm(sampling, rows=3), make_lm(sampling, rows=50)

    def ids(policy):
        rows = policy.sample(prompts, 6, np.random.default_rng(0))
        return [[r.token_ids for r in row] for row in rows]

    with lm.reference():
        assert ids(lm) == ids(plain)
    assert ids(lm) != ids(plain)
