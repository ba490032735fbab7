"""The store: killed anywhere and resumed, it is the store of a run that was never stopped.

Run as a script, this file collects into a folder and kills itself at a given point.
"""

import dataclasses
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler, Sampling
from infalign.rollouts import RolloutStore, collect, score, store_key
from infalign.rollouts.shards import write_atomically

PROMPTS = [Prompt.from_text(f"question {i}") for i in range(11)]
K, CHUNK = 4, 3


@dataclasses.dataclass
class FakeSampler:
    """Writes random words; its law needs no model."""

    fingerprint: str = "weights-1"
    sampling: Sampling = dataclasses.field(default_factory=lambda: Sampling(0.8, 5, ("\n",)))
    name: str = "fake"
    delay: float = 0.0
    short_by: int = 0
    calls: list = dataclasses.field(default_factory=list)

    def sample(self, prompts, k, rng):
        time.sleep(self.delay)
        self.calls.append((list(prompts), k))
        return [[self.answer(rng) for _ in range(k - self.short_by)] for _ in prompts]

    def answer(self, rng):
        tokens = tuple(rng.integers(0, 50_000, rng.integers(1, 6)).tolist())
        reason = "length" if len(tokens) == 5 else "stop"
        return Response(" ".join(map(str, tokens)), tokens, -float(rng.exponential(9)), reason)


@dataclasses.dataclass
class Length:
    """Characters in the response."""

    name: str = "length"
    delay: float = 0.0

    def __call__(self, prompts, responses):
        time.sleep(self.delay)
        return np.array([[float(len(text)) for text in row] for row in responses])


def collected(path, k=K, prompts=PROMPTS):
    store = RolloutStore.open(path, FakeSampler(), seed=7)
    collect(FakeSampler(), prompts, k, store, chunk=CHUNK)
    return store


def contents(path):
    """Every file that holds data, with a hash of its bytes."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file() and file.name not in {"store.lock", "index.cache"}
    }


def shards(path, folder="rollouts"):
    return sorted((path / folder).glob("*.parquet"))


# Collecting.


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


# Killed and resumed.


def collect_then_die(path, event_count, seconds):
    """Collect and score slowly; SIGKILL before the n-th file operation, or after some time."""
    remaining = event_count

    def watch(event, arguments):
        nonlocal remaining
        if event in {"open", "os.rename", "os.mkdir", "os.remove"} and path in str(arguments[0]):
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if seconds:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, seconds)
    delay = 0.01 if seconds else 0.0
    sampler = FakeSampler(delay=delay)
    store = RolloutStore.open(path, sampler, seed=7)
    collect(sampler, PROMPTS, K, store, chunk=CHUNK)
    score(store, Length(delay=delay), PROMPTS, chunk=CHUNK)


def killed(path, event_count=0, seconds=0.0):
    command = [sys.executable, __file__, str(path), str(event_count), str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, check=False).returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s"
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    return contents(path)


KILLS = [{"event_count": n} for n in (1, 4, 5, 7, 12, 17, 23, 34)]
KILLS += [{"seconds": seconds} for seconds in random.Random(0).choices(range(5, 75), k=3)]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_killed_anywhere_and_resumed_is_as_if_never_stopped(tmp_path, uninterrupted, kill):
    path = tmp_path / "s"
    kill = {key: value / 1000 if key == "seconds" else value for key, value in kill.items()}
    assert killed(path, **kill) == -signal.SIGKILL
    assert contents(path).items() != uninterrupted.items()
    for folder in ("rollouts", "rewards"):  # a reader in between sees whole shards only
        for shard in shards(path, folder):
            pq.read_table(shard)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    assert contents(path) == uninterrupted


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


# Damage.

DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "a bit flipped in the rows": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "a bit flipped in the footer": lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
}


@pytest.mark.filterwarnings("ignore:.*a rollout whose reward it holds is gone")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("folder", ["rollouts", "rewards"])
def test_a_damaged_shard_is_set_aside_and_made_again(tmp_path, uninterrupted, folder, damage):
    path = tmp_path / "s"
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    shard = shards(path, folder)[1]
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    with pytest.warns(UserWarning, match=f"{shard.name} was set aside"):
        store = RolloutStore.existing(path)
    with pytest.raises(ValueError, match=r"0 .* of prompt .* 4 are needed"):
        store.rewards("length", PROMPTS, K)
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    rest = {k: v for k, v in contents(path).items() if not k.startswith("damaged")}
    assert rest == uninterrupted
    assert any((path / "damaged").iterdir())


def test_rewards_never_outlive_their_rollouts(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS, chunk=len(PROMPTS))
    shards(tmp_path / "s")[0].unlink()
    with pytest.warns(UserWarning, match="a rollout whose reward it holds is gone"):
        store = RolloutStore.existing(tmp_path / "s")
    assert store.reward_names == ()


def test_two_shards_for_one_rollout_are_refused(tmp_path):
    store = collected(tmp_path / "s")
    collected(tmp_path / "other", k=2)
    other = shards(tmp_path / "other")[0]
    (tmp_path / "s" / "rollouts" / other.name).write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="stands in two shards"):
        RolloutStore.existing(store.path)


def test_leftovers_of_a_dead_writer_are_cleared(tmp_path):
    store = collected(tmp_path / "s")
    leftover = tmp_path / "s" / "partial" / "half.parquet.123"
    leftover.write_bytes(b"PAR1")
    assert len(RolloutStore.existing(tmp_path / "s").prompt_ids) == len(PROMPTS)
    assert leftover.exists()  # a reader leaves the writer's files alone
    collect(FakeSampler(), PROMPTS, K, store, chunk=CHUNK)
    assert not leftover.exists()


# Refusals.


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


# Rewards.


class Flawed(Length):
    """Right until it meets a certain prompt."""

    def __init__(self, flaw, at=PROMPTS[7].text):
        super().__init__(name="flawed")
        self.flaw, self.at = flaw, at

    def __call__(self, prompts, responses):
        values = super().__call__(prompts, responses)
        return self.flaw(values, prompts.index(self.at)) if self.at in prompts else values


def nan_at(values, index):
    values[index, 1] = np.nan
    return values


def raise_at(values, index):
    raise KeyError("no such word")


FLAWS = {
    "nan": (nan_at, "returned nan for the response '"),
    "infinite": (lambda v, i: nan_at(v, i) * np.inf, "returned .* for the response"),
    "raises": (raise_at, "KeyError: 'no such word'"),
    "too short": (lambda v, i: v[:, 1:], r"shape \(1, 3\); \(1, 4\) is needed"),
    "flat": (lambda v, i: v.ravel(), r"shape \(4,\); \(1, 4\) is needed"),
    "nothing": (lambda v, i: None, r"shape \(\); \(1, 4\)"),
    "text": (lambda v, i: "good", "could not convert string to float"),
    "ragged": (lambda v, i: [[1.0], [2.0, 3.0]], "inhomogeneous"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_reward_is_named_with_its_prompt_and_loses_nothing(tmp_path, flaw):
    change, message = FLAWS[flaw]
    store = collected(tmp_path / "s")
    named = rf"reward 'flawed' failed on prompt {PROMPTS[7].id} \('question 7'\).*{message}"
    with pytest.raises(ValueError, match=named):
        score(store, Flawed(change), PROMPTS, chunk=CHUNK)
    assert store.rewards("flawed", PROMPTS[:6]).shape == (6, K)
    score(store, Length(name="flawed"), PROMPTS, chunk=CHUNK)
    assert np.isfinite(store.rewards("flawed", PROMPTS)).all()
    assert len(store.responses(PROMPTS)) == len(PROMPTS)


def test_a_reward_that_fails_only_in_batches_is_named_too(tmp_path):
    class Batchless(Length):
        def __call__(self, prompts, responses):
            if len(prompts) > 1:
                raise MemoryError("too many")
            return super().__call__(prompts, responses)

    with pytest.raises(ValueError, match=r"'length' failed on 3 prompts together.*MemoryError"):
        score(collected(tmp_path / "s"), Batchless(), PROMPTS, chunk=CHUNK)


def test_new_rollouts_are_scored_and_old_ones_not_again(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS)
    first = store.rewards("length", PROMPTS)
    collect(FakeSampler(), PROMPTS, 6, store)
    with pytest.raises(ValueError, match="rewards of prompt"):
        store.rewards("length", PROMPTS, 6)

    class NewOnly(Length):
        def __call__(self, prompts, responses):
            assert {len(row) for row in responses} == {2}
            return super().__call__(prompts, responses)

    score(store, NewOnly(), PROMPTS)
    np.testing.assert_array_equal(store.rewards("length", PROMPTS)[:, :K], first)


def test_rewards_of_one_name_come_from_one_reward(tmp_path):
    class Fingerprinted(Length):
        fingerprint = "head-1"

    class Refitted(Length):
        fingerprint = "head-2"

    store = collected(tmp_path / "s")
    score(store, Fingerprinted(), PROMPTS[:5])
    score(store, Fingerprinted(), PROMPTS)
    store = RolloutStore.existing(store.path)
    for other in (Refitted(), Length()):
        with pytest.raises(ValueError, match=r"head-1 there.*length-\*\.parquet"):
            score(store, other, PROMPTS)
    for shard in shards(store.path, "rewards"):
        shard.unlink()
    score(store, Refitted(), PROMPTS)


@pytest.mark.parametrize("name", ["text", "sample", "reward", ""])
def test_a_reward_cannot_take_a_columns_name(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be named"):
        score(collected(tmp_path / "s"), Length(name=name), PROMPTS)


def test_scoring_needs_rollouts(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:3])
    with pytest.raises(ValueError, match=f"{PROMPTS[3].id} .* has no rollouts"):
        score(store, Length(), PROMPTS)


# Reading with other tools.


@pytest.fixture
def scored(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS)
    score(store, Length(name="other/length"), PROMPTS[:3])
    return store


def test_the_wide_table_has_a_column_per_reward(scored):
    table = scored.read()
    assert table.num_rows == len(PROMPTS) * K
    assert table.column_names[-2:] == ["length", "other/length"]
    assert table["other/length"].null_count == (len(PROMPTS) - 3) * K
    assert table["length"].to_pylist() == [len(text) for text in table["text"].to_pylist()]
    keys = list(zip(table["prompt_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_the_export_is_the_wide_table(scored, tmp_path):
    assert pq.read_table(scored.export(tmp_path / "wide.parquet")).equals(scored.read())


def test_an_empty_store_reads_as_an_empty_table(tmp_path):
    store = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
    assert store.read().num_rows == 0
    assert "log_prob" in store.read().column_names


def expected_rows(store):
    return {
        (prompt.id, i, response.text, response.log_prob)
        for prompt, row in zip(PROMPTS, store.responses(PROMPTS), strict=True)
        for i, response in enumerate(row)
    }


COLUMNS = ["prompt_id", "sample", "text", "log_prob"]


def test_pandas_reads_the_folder(scored):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(scored.path / "rollouts")
    assert set(frame[COLUMNS].itertuples(index=False, name=None)) == expected_rows(scored)
    assert len(pandas.read_parquet(scored.path / "rewards")) == (len(PROMPTS) + 3) * K


def test_polars_reads_the_folder(scored):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(scored.path / "rollouts")
    assert set(frame.select(COLUMNS).iter_rows()) == expected_rows(scored)
    assert len(polars.read_parquet(scored.path / "rewards")) == (len(PROMPTS) + 3) * K


def test_duckdb_reads_the_folder_and_joins_rewards(scored):
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(
        f"select prompt_id, sample, text, log_prob from '{scored.path}/rollouts/*.parquet'"
    ).fetchall()
    assert set(rows) == expected_rows(scored)
    joined = duckdb.sql(
        f"select count(*) from '{scored.path}/rollouts/*.parquet' join "
        f"'{scored.path}/rewards/*.parquet' using (prompt_id, sample) "
        "where reward_name = 'length' and reward = length(text)"
    ).fetchall()
    assert joined == [(len(PROMPTS) * K,)]


def test_datasets_reads_the_folder(scored, tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(
        "parquet",
        data_dir=str(scored.path / "rollouts"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert {tuple(row[name] for name in COLUMNS) for row in data} == expected_rows(scored)


# The disk.


def test_a_full_disk_keeps_finished_shards_and_says_so(tmp_path, uninterrupted):
    # The operating system's own limit on file sizes stands in for a full disk: writing fails.
    script = (
        "import resource, runpy, sys; sys.argv = [sys.argv[1], *sys.argv[2:]]\n"
        "from infalign.rollouts.store import RolloutStore\n"
        "test = runpy.run_path(sys.argv[0])\n"
        "store = test['collected'](sys.argv[1], prompts=test['PROMPTS'][:6])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "test['collected'](sys.argv[1])"
    )
    path = tmp_path / "s"
    done = subprocess.run(
        [sys.executable, "-c", script, __file__, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"[Errno {errno.EFBIG}] cannot write" in last
    assert "What was finished before is kept. Make room" in last
    assert len(shards(path)) == 2
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    assert contents(path) == uninterrupted


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_a_read_only_folder_is_explained():
    # Under /tmp itself, where a user other than root, whom modes do not bind, may look.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        collected(path, prompts=PROMPTS[:3])
        script = (
            "import os, runpy, sys; test = runpy.run_path(sys.argv[1])\n"
            "import pyarrow.compute  # read while that is still allowed\n"
            "if os.geteuid() == 0:\n"
            "    os.setegid(65534); os.seteuid(65534)\n"
            "assert len(test['RolloutStore'].existing(sys.argv[2]).prompt_ids) == 3\n"
            "test['collected'](sys.argv[2])"
        )
        for name in (path / "rollouts", path / "partial", path, Path(folder)):
            name.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", script, __file__, str(path)], capture_output=True, text=True
        )
        for name in (Path(folder), path):
            name.chmod(0o755)
    last = done.stderr.strip().splitlines()[-1]
    assert "PermissionError" in last
    assert "make the folder writable" in last


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file"
    write_atomically(target, b"old", tmp_path / "partial")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="cannot write folder"):
        write_atomically(tmp_path / "folder", b"new", tmp_path / "partial")
    os.link(target, tmp_path / "whoever has the old file open")
    write_atomically(target, b"new", tmp_path / "partial")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "whoever has the old file open").read_bytes() == b"old"
    assert list((tmp_path / "partial").iterdir()) == []


if __name__ == "__main__":
    collect_then_die(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
