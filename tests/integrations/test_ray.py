"""Ray: whichever worker answers first and whichever dies, the store is the single-process one.

Run as a script, this file rolls out into a folder and kills itself half-way.
"""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infalign.integrations.freezing import freeze
from infalign.integrations.frozen import FrozenReward
from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling
from infalign.rollouts import RolloutStore, chunks, collect, draw, score

pytest.importorskip("ray", reason="needs infalign[ray]")

from infalign.integrations.ray import Workers, calibrate, connect, reward, rewards_of, rollout
from infalign.integrations.ray.actors import Task, results
from infalign.integrations.ray.calibrating import COLUMNS, Calibrate

PROMPTS = [Prompt.from_text(f"question {i}") for i in range(11)]
K, CHUNK, SEED = 4, 2, 7
TWO = Workers(2)


@dataclasses.dataclass
class Words:
    """Writes random words, slower where its prompt is early, so that chunks finish out of order."""

    folder: str = ""
    """Where it notes what it was asked and who answered."""
    kill: int = 0
    """How many workers die over the fourth prompt."""
    error: Exception | None = None
    """Raised over the fourth prompt."""
    fingerprint: str = "weights-1"
    name: str = "words"
    sampling: Sampling = dataclasses.field(default_factory=lambda: Sampling(0.8, 5))

    def sample(self, prompts, k, rng):
        if self.folder:
            note = Path(self.folder) / f"{time.time_ns()}-{os.getpid()}"
            note.write_text(prompts[0])
        if "question 4" in prompts:
            self.fail()
        if "question 0" in prompts:
            time.sleep(0.5)
        return [[self.answer(rng) for _ in range(k)] for _ in prompts]

    def fail(self):
        if self.error is not None:
            raise self.error
        if len(list(Path(self.folder).glob("killed-*"))) < self.kill:
            (Path(self.folder) / f"killed-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def answer(self, rng):
        tokens = tuple(rng.integers(0, 50_000, rng.integers(1, 6)).tolist())
        return Response(" ".join(map(str, tokens)), tokens, -float(rng.exponential(9)))


@dataclasses.dataclass
class Length:
    """Characters in the response."""

    folder: str = ""
    kill: int = 0
    name: str = "length"
    fingerprint: str = "length-1"

    def __call__(self, prompts, responses):
        if "question 4" in prompts and self.kill:
            Words(self.folder, self.kill).fail()
        return np.array([[float(len(text)) for text in row] for row in responses])


def contents(path):
    """The identity and every shard, with a hash of its bytes."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (path / "store.json", *path.rglob("*.parquet"))
    }


def opened(path):
    return RolloutStore.open(path, Words(), SEED)


def notes(folder):
    """(process, first prompt) of every chunk that was begun, in that order."""
    return [
        (file.name.split("-")[1], file.read_text())
        for file in sorted(Path(folder).iterdir())
        if file.name[0].isdigit()
    ]


@pytest.fixture(scope="session")
def cluster():
    import ray

    connect("local", TWO)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The store that one process makes."""
    path = tmp_path_factory.mktemp("alone") / "s"
    collect(Words(), PROMPTS, K, opened(path), chunk=CHUNK)
    score(RolloutStore.existing(path), Length(), PROMPTS, chunk=CHUNK)
    return path


@pytest.fixture
def seen(tmp_path):
    folder = tmp_path / "seen"
    folder.mkdir()
    return folder


def test_the_store_equals_the_single_process_one_row_for_row(cluster, alone, tmp_path, seen):
    store, counts = opened(tmp_path / "s"), []
    rollout(
        Words(str(seen)), PROMPTS, K, store, workers=TWO, chunk=CHUNK,
        progress=lambda *count: counts.append(count),
    )  # fmt: skip
    reward(store, Length(), PROMPTS, workers=TWO, chunk=CHUNK)
    assert store.read().equals(RolloutStore.existing(alone).read())
    assert contents(tmp_path / "s") == contents(alone)
    assert len({process for process, _ in notes(seen)}) == 2
    assert counts[0] == (0, 44)
    assert counts[-1] == (44, 44)
    # The slow first chunk came after others, or the order would not have been put to the test.
    assert counts[1] != (8, 44) or notes(seen)[0][1] != "question 0" or len(counts) == 7


def test_killed_workers_cost_nothing(cluster, alone, tmp_path, seen):
    kill = 2
    store = opened(tmp_path / "s")
    rollout(Words(str(seen), kill), PROMPTS, K, store, workers=TWO, chunk=CHUNK)
    assert len(list(seen.glob("killed-*"))) == kill
    assert [prompt for _, prompt in notes(seen)].count("question 4") == kill + 1
    assert store.read().equals(RolloutStore.existing(alone).read().drop_columns("length"))


def test_a_killed_worker_costs_nothing_while_scoring(cluster, alone, tmp_path, seen):
    store = opened(tmp_path / "s")
    collect(Words(), PROMPTS, K, store, chunk=CHUNK)
    reward(store, Length(str(seen), kill=1), PROMPTS, workers=TWO, chunk=CHUNK)
    assert len(list(seen.glob("killed-*"))) == 1
    assert contents(tmp_path / "s") == contents(alone)


def test_the_comparison_can_fail(alone, tmp_path):
    """Negative control: random numbers that follow from the order of arrival are noticed."""
    missing = chunks(opened(tmp_path / "empty"), PROMPTS, K, CHUNK)

    def backwards(name, answer):
        store = opened(tmp_path / name)
        with store.writing():
            for part in missing[::-1]:
                store.add_rollouts(part.prompts, part.samples, answer(part))
        return store.read()

    whole = RolloutStore.existing(alone).read().drop_columns("length")
    stream = np.random.default_rng(SEED)
    in_order_of_arrival = backwards(
        "stream", lambda part: Words().sample([p.text for p in part.prompts], K, stream)
    )
    assert in_order_of_arrival["sample"].equals(whole["sample"])
    assert not in_order_of_arrival.equals(whole)
    assert backwards("drawn", lambda part: draw(Words(), part, SEED)).equals(whole)


# What stops, and how it goes on.


def test_an_error_is_raised_here_once_and_the_rest_is_drawn_by_the_next_run(
    cluster, alone, tmp_path, seen
):
    store = opened(tmp_path / "s")
    broken = Words(str(seen), error=ValueError("the tokenizer has no such word"))
    with pytest.raises(ValueError, match="the tokenizer has no such word") as caught:
        rollout(broken, PROMPTS, K, store, workers=Workers(1), chunk=CHUNK)
    assert str(caught.value) == "the tokenizer has no such word"
    assert "Raised in worker" in caught.value.__notes__[0]
    assert "in fail" in str(caught.value.__cause__)
    asked = [prompt for _, prompt in notes(seen)]
    assert asked.count("question 4") == 1
    kept = contents(tmp_path / "s")
    assert 1 < len(kept) < 7, "the identity, and some shards"
    rollout(Words(str(seen)), PROMPTS, K, store, workers=Workers(1), chunk=CHUNK)
    assert kept.items() < contents(tmp_path / "s").items()
    assert store.read().equals(RolloutStore.existing(alone).read().drop_columns("length"))
    again = [prompt for _, prompt in notes(seen)][len(asked) :]
    assert len(again) == 7 - len(kept), "only what was missing"


def test_a_killed_driver_is_resumed(cluster, alone, tmp_path):
    path = tmp_path / "s"
    command = [sys.executable, __file__, str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert 0 < len(list(path.glob("rollouts/*.parquet"))) < 6
    rollout(Words(), PROMPTS, K, opened(path), workers=Workers(1), chunk=CHUNK)
    whole = RolloutStore.existing(alone).read().drop_columns("length")
    assert RolloutStore.existing(path).read().equals(whole)


def roll_out_then_die(path):
    """As a driver of its own that is killed when half of the rollouts are there."""

    def watch(done, total):
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    rollout(Words(), PROMPTS, K, opened(path), workers=Workers(1), chunk=CHUNK, progress=watch)


def die(made, part):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_chunk_that_kills_every_worker_is_given_up(cluster):
    task = Task("policy 'deadly'", dict, lambda made: None, die, tries=1)
    with pytest.raises(ChildProcessError, match=r"1 workers died .* chunk of policy 'deadly'"):
        list(results(task, [0], Workers(1)))


def test_another_policy_in_the_workers_is_refused(cluster, tmp_path):
    store = opened(tmp_path / "s")
    other = dataclasses.replace(Words(), fingerprint="weights-2")
    with pytest.raises(ValueError, match="'weights-1' there and 'weights-2' here"):
        rollout(Words(), PROMPTS, K, store, workers=Workers(1), make=lambda: other)
    assert list(contents(tmp_path / "s")) == ["store.json"]


def test_a_second_writer_is_refused(tmp_path):
    collect(Words(), PROMPTS, K, opened(tmp_path / "s"))
    with opened(tmp_path / "s").writing():
        with pytest.raises(BlockingIOError, match="another run"):
            rollout(Words(), PROMPTS, K + 1, opened(tmp_path / "s"))
        with pytest.raises(BlockingIOError, match="another run"):
            reward(opened(tmp_path / "s"), Length(), PROMPTS)


def test_what_cannot_be_sent_says_what_to_give_instead(cluster, tmp_path):
    policy = Words()
    policy.lock = threading.Lock()
    with pytest.raises(ValueError, match="Give `make=`"):
        rollout(policy, PROMPTS, K, opened(tmp_path / "s"))


# Calibrating.


@pytest.fixture
def frozen(tmp_path):
    rng = np.random.default_rng(0)
    return freeze(
        tmp_path / "frozen",
        prompt_ids=[prompt.id for prompt in PROMPTS],
        prompts=[prompt.text for prompt in PROMPTS],
        reference_rewards=rng.integers(0, 9, (len(PROMPTS), 16)) / 3,
        rank_means=np.sort(rng.normal(size=17)),
        facts={
            "k": 16,
            "beta": 0.1,
            "reward": {"name": "length"},
            "transform": "log",
            "procedure": "best_of_4",
            "policy": {},
            "sampling": {"stop": []},
            "end_marks": [],
        },
    )


def test_calibrating_gives_the_same_bits(cluster, frozen, tmp_path):
    rng = np.random.default_rng(1)
    ids = [PROMPTS[i].id for i in rng.integers(0, len(PROMPTS), 3000)]
    table = pa.table({"prompt_id": ids, "reward": rng.integers(-1, 10, 3000) / 3})
    here = FrozenReward.load(frozen).calibrate(ids, table["reward"].to_numpy())
    path = calibrate(table, frozen, workers=TWO, output=tmp_path / "c.parquet", batch_size=500)
    written = pq.read_table(path)
    assert written.column_names == ["prompt_id", "reward", *COLUMNS]
    assert written.equals(Calibrate(frozen)(table))
    assert written["training_reward"].to_numpy().tobytes() == here.training_rewards.tobytes()
    assert written["quantile"].to_numpy().tobytes() == here.quantiles.tobytes()
    assert list(tmp_path.glob(".*")) == [], "nothing unfinished is left"
    shipped = calibrate(table, frozen, workers=Workers(1), ship=True).take_all()
    assert [row["training_reward"] for row in shipped] == here.training_rewards.tolist()


def test_stored_rewards_are_calibrated_and_unknown_prompts_named(cluster, alone, frozen, tmp_path):
    table = rewards_of(RolloutStore.existing(alone), "length")
    assert table.select(["prompt_id", "sample"]).equals(
        RolloutStore.existing(alone).read().select(["prompt_id", "sample"])
    )
    assert Calibrate(frozen)(table).num_columns == 7
    unknown = pa.table({"prompt_id": ["nobody"], "reward": [1.0]})
    with pytest.raises(ValueError, match=r"^prompt 'nobody' has no reference rewards"):
        calibrate(unknown, frozen, workers=Workers(1), output=tmp_path / "c.parquet")
    assert not list(tmp_path.glob("*c.parquet*"))
    with pytest.raises(ValueError, match="prompt_id and reward are needed"):
        calibrate(table.drop_columns("reward"), frozen)
    with pytest.raises(ValueError, match="it has \\['length'\\]"):
        rewards_of(RolloutStore.existing(alone), "width")


# The cluster.


def test_impossible_workers_are_refused():
    for options in ({"count": 0}, {"cpus": 0}, {"gpus": -1}, {"gpus": 1.5}):
        with pytest.raises(ValueError, match="is needed"):
            Workers(**options)


def test_a_worker_that_fits_no_machine_is_refused(cluster):
    with pytest.raises(ValueError, match="a worker needs 1 CPU and 1000 GPU"):
        connect("local", Workers(1, gpus=1000))


if __name__ == "__main__":
    roll_out_then_die(Path(sys.argv[1]))
