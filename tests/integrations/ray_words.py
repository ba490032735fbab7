"""Policy and reward of Ray's tests, importable by the workers.

python ray_words.py FOLDER ADDRESS   rolls out on that cluster and kills itself half-way
"""

import dataclasses
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling
from infalign.rollouts import RolloutStore

PROMPTS = [Prompt.from_text(f"question {i}") for i in range(11)]
K, CHUNK, SEED = 4, 2, 7


@dataclasses.dataclass
class Words:
    """Writes random words."""

    folder: str = ""
    """Where it notes what it was asked and who answered."""
    kill: int = 0
    """How many workers die over the fourth prompt."""
    late: str = ""
    """A store's folder: the first prompt is answered once the driver has put something there."""
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
        if self.late and "question 0" in prompts:
            self.wait()
        return [[self.answer(rng) for _ in range(k)] for _ in prompts]

    def wait(self):
        end = time.monotonic() + 60
        while not list(Path(self.late).glob("rollouts/*.parquet")) and time.monotonic() < end:
            time.sleep(0.02)

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


def roll_out_then_die(path, address):
    """As a driver of its own that is killed when half of the rollouts are there."""

    from infalign.integrations.ray import Workers, connect, rollout

    def watch(done, total):
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    connect(address, Workers(1))
    rollout(Words(), PROMPTS, K, opened(path), workers=Workers(1), chunk=CHUNK, progress=watch)


if __name__ == "__main__":
    roll_out_then_die(Path(sys.argv[1]), sys.argv[2])
