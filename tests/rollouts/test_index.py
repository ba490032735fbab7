"""The index: the shards are the truth, what is remembered of them only saves time."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_store import CHUNK, PROMPTS, FakeSampler, K, Length, collected, contents, shards

from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.rollouts import Chunk, RolloutStore, chunks, collect, draw, score, unscored
from infalign.rollouts import contents as remembered

OLD = 10_000_000_000
"""Nanoseconds; older than anything doubtful."""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A scored store whose shards, though young, are all remembered."""
    monkeypatch.setattr(remembered, "TICK", -OLD)
    score(collected(tmp_path / "s"), Length(), PROMPTS, chunk=CHUNK)
    return tmp_path / "s"


@pytest.fixture
def read(monkeypatch):
    """Names of the shards that are read to be indexed."""
    names, runs_of = [], remembered.runs_of

    def watched(path, name, signature):
        names.append(name)
        return runs_of(path, name, signature)

    monkeypatch.setattr(remembered, "runs_of", watched)
    return names


def everything(store):
    return store.read().to_pylist(), store.rewards("length", PROMPTS).tolist()


def test_what_was_checked_is_not_read_again(path, read):
    store = RolloutStore.existing(path)
    assert read == []
    (path / "index.cache").unlink()
    again = RolloutStore.existing(path)
    assert len(read) == len(shards(path)) + len(shards(path, "rewards"))
    assert everything(store) == everything(again)


@pytest.mark.parametrize("folder", ["rollouts", "rewards"])
@pytest.mark.filterwarnings("ignore:.*a rollout whose reward it holds is gone")
def test_an_altered_shard_is_noticed_though_it_was_remembered(path, folder):
    shard = shards(path, folder)[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert shard.stat().st_size == len(data)
    with pytest.warns(UserWarning, match="was set aside"):
        RolloutStore.existing(path)


def test_an_altered_shard_with_its_old_time_is_noticed(path):
    shard = shards(path)[1]
    data, status = shard.read_bytes(), shard.stat()
    shard.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.warns(UserWarning, match="was set aside"):
        RolloutStore.existing(path)


def test_a_shard_altered_after_opening_is_noticed_when_it_is_read(path):
    store = RolloutStore.existing(path)
    shard = shards(path, "rewards")[0]
    data = shard.read_bytes()
    shard.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(ValueError, match=f"{shard.name} is not what it was"):
        store.rewards("length", PROMPTS)
    assert not shard.exists()
    with pytest.raises(ValueError, match=f"{shard.name} is not what it was .* taken away"):
        store.rewards("length", PROMPTS)


@pytest.mark.parametrize("folder", ["rollouts", "rewards"])
@pytest.mark.filterwarnings("ignore:.*a rollout whose reward it holds is gone")
def test_a_shard_that_rotted_without_changing_its_times_is_made_again(
    path, folder, uninterrupted, monkeypatch
):
    """As a disk rots: another byte under the same size, times and memory of having been checked."""
    shard, look = shards(path, folder)[1], remembered.look
    signatures = look(path)
    data = shard.read_bytes()
    shard.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    monkeypatch.setattr(
        remembered,
        "look",
        lambda at: {name: signatures.get(name, s) for name, s in look(at).items()},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = RolloutStore.existing(path)  # it is not read, so it cannot be noticed yet
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{shard.name} is not what it was"):
            everything(store)
    assert (path / "damaged" / f"{folder}-{shard.name}").exists()
    monkeypatch.setattr(remembered, "look", look)
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    everything(RolloutStore.existing(path))
    rest = {k: v for k, v in contents(path).items() if not k.startswith("damaged")}
    assert rest == uninterrupted


def test_a_shard_misread_once_is_no_damage(path, monkeypatch):
    store, read, misread = RolloutStore.existing(path), Path.read_bytes, []

    def once(file):
        data = read(file)
        if file.suffix == ".parquet" and not misread:
            misread.append(file)
            return data[:-1]
        return data

    monkeypatch.setattr(Path, "read_bytes", once)
    assert len(store.rewards("length", PROMPTS)) == len(PROMPTS)
    assert misread
    assert not (path / "damaged").exists()


def test_young_shards_are_not_trusted_to_keep_their_times(tmp_path, read, monkeypatch):
    monkeypatch.setattr(remembered, "TICK", 3600 * OLD)
    collected(tmp_path / "s")
    read.clear()
    RolloutStore.existing(tmp_path / "s")
    assert len(read) == len(shards(tmp_path / "s"))


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-9], lambda d: b"x" + d[1:]])
def test_a_damaged_memory_is_no_memory(path, read, damage):
    before = everything(RolloutStore.existing(path))
    cache = path / "index.cache"
    cache.write_bytes(damage(cache.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert everything(RolloutStore.existing(path)) == before
    assert len(read) == len(shards(path)) + len(shards(path, "rewards"))


def test_a_shard_that_is_gone_is_forgotten(path):
    for shard in shards(path, "rewards"):
        shard.unlink()
    assert RolloutStore.existing(path).reward_names == ()


def test_a_memory_that_came_from_another_store_is_not_believed(path, tmp_path):
    other = collected(tmp_path / "other", k=2)
    (other.path / "index.cache").write_bytes((path / "index.cache").read_bytes())
    store = RolloutStore.existing(other.path)
    assert store.counts(PROMPTS).tolist() == [2] * len(PROMPTS)
    assert store.reward_names == ()


def test_a_reader_leaves_no_file(path):
    (path / "index.cache").unlink()
    before = {file.name for file in path.iterdir()}
    everything(RolloutStore.existing(path))
    assert {file.name for file in path.iterdir()} == before


# Drawing elsewhere.


def test_chunks_drawn_elsewhere_in_any_order_make_the_same_store(tmp_path):
    collected(tmp_path / "whole", k=6)
    store = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
    with store.writing():
        parts = chunks(store, PROMPTS, 6, CHUNK)
        assert sum(part.size for part in parts) == 6 * len(PROMPTS)
        for part in parts[::-1]:
            store.add_rollouts(part.prompts, part.samples, draw(FakeSampler(), part, store.seed))
        assert chunks(store, PROMPTS, 6, CHUNK) == []
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_chunks_hold_together_what_lacks_the_same(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:2])
    with store.writing():
        store.add_rollouts(PROMPTS[2:3], (1, 4), [[Response("a"), Response("b")]])
    few, one, all_of_it = chunks(store, PROMPTS[:4], 6, chunk=4)
    assert few == Chunk(tuple(PROMPTS[:2]), (4, 5))
    assert one == Chunk((PROMPTS[2],), (0, 2, 3, 5))
    assert all_of_it == Chunk((PROMPTS[3],), tuple(range(6)))
    part, rest = unscored(store, "r", PROMPTS[1:3], chunk=2)
    assert (part.samples, rest.samples) == ((0, 1, 2, 3), (1, 4))


def test_what_is_there_is_not_added_again_and_nothing_is_written(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS[:1])
    before = contents(tmp_path / "s")
    one = [Response("a")]
    with store.writing():
        with pytest.raises(ValueError, match=rf"{PROMPTS[0].id}, sample 2, already"):
            store.add_rollouts(PROMPTS[:1], (2,), [one])
        with pytest.raises(ValueError, match=r"'length' rewards of prompt .* already"):
            store.add_rewards("length", None, PROMPTS[:1], (2,), np.ones((1, 1)))
        with pytest.raises(ValueError, match="Add the rollouts first"):
            store.add_rewards("length", None, PROMPTS[1:2], (K,), np.ones((1, 1)))
        with pytest.raises(ValueError, match=r"\[1\] responses were given for 2 samples"):
            store.add_rollouts(PROMPTS[:1], (7, 8), [one])
        with pytest.raises(ValueError, match=r"shape \(1, 1\) were given for 2"):
            store.add_rewards("other", None, PROMPTS[:1], (0, 1), np.ones((1, 1)))
    assert contents(tmp_path / "s") == before


# Reading in batches.


def test_batches_are_the_whole(path):
    store = RolloutStore.existing(path)
    batches = list(store.batches(size=3))
    assert [len(batch["prompt_id"].unique()) for batch in batches] == [3, 3, 3, 2]
    rows = sorted(
        (row for batch in batches for row in batch.to_pylist()),
        key=lambda row: (row["prompt_id"], row["sample"]),
    )
    assert rows == store.read().to_pylist()
    by_id = {
        prompt_id: rewards
        for ids, values in store.reward_batches("length", size=4)
        for prompt_id, rewards in zip(ids, values.tolist(), strict=True)
    }
    assert [by_id[prompt.id] for prompt in PROMPTS] == store.rewards("length", PROMPTS).tolist()


def test_tokens_are_counted_as_the_responses_have_them(path):
    store = RolloutStore.existing(path)
    expected = sum(len(r.token_ids) for row in store.responses(PROMPTS[3:7]) for r in row)
    assert store.token_count(PROMPTS[6:2:-1]) == expected > 0
    assert store.token_count([]) == store.token_count([Prompt.from_text("never asked")]) == 0
    collect(FakeSampler(), PROMPTS[:2], 7, store)  # unequally many are counted too
    more = store.responses(PROMPTS[:1])[0]
    assert store.token_count(PROMPTS[:1]) == sum(len(r.token_ids) for r in more)


def test_rewards_of_unequally_many_rollouts_are_all_in_the_table(path):
    store = RolloutStore.existing(path)
    collect(FakeSampler(), PROMPTS[:2], 7, store)
    score(store, Length(), PROMPTS[:1])
    table = store.reward_table("length")
    assert table.num_rows == K * len(PROMPTS) + 3
    wide = store.read()
    assert wide["length"].null_count == 3
    assert table["reward"].to_pylist() == wide["length"].drop_null().to_pylist()
    assert table.column_names == ["prompt_id", "sample", "reward"]
