"""A store small enough to make in milliseconds, by a sampler without a model."""

import dataclasses
import hashlib
import time

import numpy as np

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling
from infalign.rollouts import RolloutStore, collect

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
