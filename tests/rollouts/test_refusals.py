"""Refusals: another law, another writer, impossible wishes."""

import dataclasses
import json

import pytest
from small_store import CHUNK, PROMPTS, FakeSampler, K, collected, contents

from infalign.protocols import Response, Sampling
from infalign.rollouts import RolloutStore, collect, store_key


@pytest.mark.parametrize(
    ("sampler", "seed", "message"),
    [
        (
            FakeSampler(fingerprint="weights-2"),
            7,
            "fingerprint is 'weights-1' there and 'weights-2'",
        ),
        (FakeSampler(sampling=Sampling(1.0, 5, ("\n",))), 7, "temperature is 0.8 there and 1.0"),
        (FakeSampler(sampling=Sampling(0.8, 9)), 7, r"max_new_tokens is 5 .* stop is \['\\n'\]"),
        (FakeSampler(), 8, "seed is 7 there and 8 here"),
    ],
)
def test_a_store_of_another_law_is_refused(tmp_path, sampler, seed, message):
    store = collected(tmp_path / "s")
    before = contents(tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        RolloutStore.open(tmp_path / "s", sampler, seed)
    with pytest.raises(ValueError, match=message):
        collect(sampler, PROMPTS, K + 1, store, seed)
    assert sampler.calls == []
    assert contents(tmp_path / "s") == before
    assert store_key(sampler, seed) != store_key(FakeSampler(), 7)


def test_a_new_name_is_not_a_new_policy(tmp_path):
    collected(tmp_path / "s")
    renamed = FakeSampler(name="the same weights")
    RolloutStore.open(tmp_path / "s", renamed, seed=7)
    assert store_key(renamed, 7) == store_key(FakeSampler(), 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1}, "k is 1; at least 2"),
        ({"chunk": 0}, "chunk is 0"),
        ({"prompts": []}, "no prompts"),
        ({"prompts": PROMPTS[:2] * 2}, "2 prompts repeat"),
        ({"prompts": [dataclasses.replace(PROMPTS[0], text="<|user|>")]}, "another question"),
        ({"policy": FakeSampler(short_by=1), "k": 9}, r"returned \[4, 4, 4\] .*" + PROMPTS[0].id),
    ],
)
def test_collecting_refuses_before_it_samples(tmp_path, arguments, message):
    store = collected(tmp_path / "s")
    before = contents(tmp_path / "s")
    given = {"policy": FakeSampler(), "prompts": PROMPTS, "k": K, "chunk": CHUNK} | arguments
    with pytest.raises(ValueError, match=message):
        collect(store=store, **given)
    assert contents(tmp_path / "s") == before


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path):
    store = collected(tmp_path / "s")
    other = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
    with store.writing():
        with pytest.raises(BlockingIOError, match="being written by another run"):
            collect(FakeSampler(), PROMPTS, 9, other)
        assert RolloutStore.existing(tmp_path / "s").responses(PROMPTS) == store.responses(PROMPTS)
    collect(FakeSampler(), PROMPTS, 9, other)


def test_a_store_opened_before_another_run_wrote_does_not_draw_again(tmp_path):
    early = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
    collected(tmp_path / "s")
    sampler = FakeSampler()
    collect(sampler, PROMPTS, K, early)
    assert sampler.calls == []
    assert len(early.responses(PROMPTS)) == len(PROMPTS)


def test_rows_are_not_added_without_the_lock(tmp_path):
    store = collected(tmp_path / "s")
    with pytest.raises(RuntimeError, match="inside `with"):
        store.add_rollouts(PROMPTS[:1], [4], [[Response("a")]])


def test_unequal_and_missing_rollouts_are_refused_on_reading(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:3])
    collect(FakeSampler(), PROMPTS[:1], 6, store)
    for prompts in (PROMPTS[:3], PROMPTS[2::-1]):
        with pytest.raises(ValueError, match=r"4 to 6 per prompt.*ask for `k=4`"):
            store.responses(prompts)
    with pytest.raises(ValueError, match=f"4 rollouts of prompt {PROMPTS[1].id} .* 5 are needed"):
        store.responses(PROMPTS[:3], k=5)
    with pytest.raises(ValueError, match="another question"):
        store.responses([dataclasses.replace(PROMPTS[0], text="<|user|>question 0")])
    with pytest.raises(ValueError, match=f"0 rollouts of prompt {PROMPTS[5].id}"):
        store.responses(PROMPTS[5:6])
    with pytest.raises(ValueError, match="0 'length' rewards"):
        store.rewards("length", PROMPTS[:1])
    assert len(store.responses(PROMPTS[:3], k=4)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        (b"[]", "AttributeError"),
        (b'{"format": 1}', "it lacks"),
    ],
)
def test_a_damaged_identity_is_refused(tmp_path, content, message):
    collected(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"store.json is damaged.*{message}"):
        collected(tmp_path / "s")


def test_a_store_without_identity_or_of_a_later_format_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no rollout store"):
        RolloutStore.existing(tmp_path)
    collected(tmp_path / "s")
    file = tmp_path / "s" / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(ValueError, match="says format 99"):
        collected(tmp_path / "s")
    file.unlink()
    with pytest.raises(ValueError, match=r"no store.json that says whose"):
        collected(tmp_path / "s")
    with pytest.raises(ValueError, match="seed is -1"):
        RolloutStore.open(tmp_path / "t", FakeSampler(), -1)
