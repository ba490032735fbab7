"""Ray: whichever worker answers first and whichever dies, the store is the single-process one."""

import contextlib
import dataclasses
import hashlib
import os
import signal
import socket
import subprocess
import sys
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
from infalign.rollouts import RolloutStore, collect, score

pytest.importorskip("ray", reason="needs infalign[ray]")

from infalign.integrations.ray import Workers, calibrate, connect, reward, rewards_of, rollout

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
    """Every file that holds data, with a hash of its bytes."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file() and file.name != "store.lock"
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


@pytest.mark.parametrize("kill", [1, 2])
def test_a_killed_worker_costs_nothing(cluster, alone, tmp_path, seen, kill):
    store = opened(tmp_path / "s")
    rollout(Words(str(seen), kill), PROMPTS, K, store, workers=TWO, chunk=CHUNK)
    assert len(list(seen.glob("killed-*"))) == kill
    assert [prompt for _, prompt in notes(seen)].count("question 4") == kill + 1
    assert store.read().equals(RolloutStore.existing(alone).read().drop_columns("length"))
