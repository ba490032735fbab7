"""Collecting: what is drawn, once, and what is read back."""

import numpy as np
import pytest
from small_store import CHUNK, PROMPTS, FakeSampler, K, Length, collected, contents, shards

from infalign.protocols import Reward, Sampler
from infalign.rollouts import RolloutStore, collect, score


def test_the_fakes_fit_the_contracts():
    assert isinstance(FakeSampler(), Sampler)
    assert isinstance(Length(), Reward)


def test_what_is_drawn_is_what_is_read(tmp_path):
    sampler = FakeSampler()
    store = RolloutStore.open(tmp_path / "s", sampler, seed=7)
    collect(sampler, PROMPTS, K, store, chunk=CHUNK)
    score(store, Length(), PROMPTS)
    for opened in (
        store,
        RolloutStore.existing(tmp_path / "s"),
        RolloutStore.open(tmp_path / "s", sampler, 7),
    ):
        responses = opened.responses(PROMPTS[::-1])
        assert [len(row) for row in responses] == [K] * len(PROMPTS)
        lengths = [[len(response.text) for response in row] for row in responses]
        np.testing.assert_array_equal(opened.rewards("length", PROMPTS[::-1]), lengths)
        for response in responses[0]:
            assert response.text == " ".join(map(str, response.token_ids))
            assert response.log_prob < 0
        assert opened.responses(PROMPTS, k=2) == [row[:2] for row in responses[::-1]]
    assert store.prompt_ids == tuple(sorted(prompt.id for prompt in PROMPTS))
    assert store.reward_names == ("length",)
    assert store.seed == 7


def test_responses_to_different_prompts_and_samples_differ(tmp_path):
    responses = collected(tmp_path / "s").responses(PROMPTS)
    texts = [response.text for row in responses for response in row]
    # A one-token answer has 50,000 values: 9 expected among 44, no repeat almost surely.
    assert len(set(texts)) == len(texts)


def test_the_same_call_gives_the_same_bytes(tmp_path):
    collected(tmp_path / "a")
    collected(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_other_responses(tmp_path):
    rows = []
    for seed in (0, 1):
        store = RolloutStore.open(tmp_path / str(seed), FakeSampler(), seed)
        collect(FakeSampler(), PROMPTS, K, store)
        rows.append(store.responses(PROMPTS))
    assert not any(a == b for a, b in zip(*rows, strict=True))


def test_nothing_is_drawn_twice(tmp_path):
    collected(tmp_path / "s")
    before = contents(tmp_path / "s")
    sampler = FakeSampler()
    store = RolloutStore.open(tmp_path / "s", sampler, seed=7)
    collect(sampler, PROMPTS[::-1], K, store, chunk=5)
    assert sampler.calls == []
    assert contents(tmp_path / "s") == before


def test_a_larger_k_and_more_prompts_keep_what_was_there(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:7])
    before, files = store.responses(PROMPTS[:7]), contents(tmp_path / "s")
    collect(FakeSampler(), PROMPTS, 9, store, chunk=CHUNK)
    assert store.responses(PROMPTS[:7], k=K) == before
    assert files.items() < contents(tmp_path / "s").items()
    assert len({response.text for row in store.responses(PROMPTS) for response in row}) == 99


def test_progress_counts_responses_from_what_is_there(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:6])
    seen = []
    collect(FakeSampler(), PROMPTS, K, store, 7, CHUNK, lambda *counts: seen.append(counts))
    assert seen == [(24, 44), (36, 44), (44, 44)]
    seen.clear()
    score(store, Length(), PROMPTS, lambda *counts: seen.append(counts), chunk=6)
    assert seen == [(0, 44), (24, 44), (44, 44)]


def test_an_interrupt_keeps_finished_chunks_and_says_how_to_resume(tmp_path, uninterrupted):
    class Interrupted(FakeSampler):
        def sample(self, prompts, k, rng):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().sample(prompts, k, rng)

    path = tmp_path / "s"
    store = RolloutStore.open(path, Interrupted(), seed=7)
    with pytest.raises(KeyboardInterrupt) as stop:
        collect(Interrupted(), PROMPTS, K, store, chunk=CHUNK)
    assert f"{path} keeps every finished chunk" in stop.value.__notes__[0]
    assert len(shards(path)) == 2
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    assert contents(path) == uninterrupted


def test_a_sampler_that_fails_costs_only_its_chunk(tmp_path):
    class Failing(FakeSampler):
        def sample(self, prompts, k, rng):
            if len(self.calls) == 2:
                raise RuntimeError("out of memory")
            return super().sample(prompts, k, rng)

    store = RolloutStore.open(tmp_path / "s", Failing(), seed=7)
    with pytest.raises(RuntimeError, match="out of memory"):
        collect(Failing(), PROMPTS, K, store, chunk=CHUNK)
    assert len(RolloutStore.existing(tmp_path / "s").prompt_ids) == 2 * CHUNK
