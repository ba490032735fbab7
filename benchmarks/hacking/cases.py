"""The wrong rewards: what is planted where, and which runs are made of it."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from benchmarks.arena.planned import run_of
from benchmarks.arena.runs import Run
from benchmarks.arena.world import World
from benchmarks.hacking.judged import AIMED
from benchmarks.methods import METHODS
from benchmarks.worlds.biased import Bias, Errors, Keyword, Length, biased, words_near

__all__ = ["CASES", "NAMES", "TRAINED", "TRAINED_IN", "Case", "case", "honest", "runs_of"]

NAMES = ("raw", "normalised", "identity", "optimal")
"""Methods compared."""
TRAINED_IN = ("honest", "rare word", "length")
"""Cases in which policies are trained; the others are optima only."""
TRAINED = (1.1,)
"""KLs that runs aim at, to be read at 1. Nats."""
CASES = ("honest", "rare word", "common word", "length", "light errors", "heavy errors")


@dataclasses.dataclass(frozen=True)
class Case:
    """A world with a reward, and which of its responses game it."""

    name: str
    world: World
    bias: Bias | None
    """None: the reward is right."""

    @functools.cached_property
    def gamed(self) -> Bool[np.ndarray, "P C"]:
        """Responses that game the reward; none where it is right."""
        if self.bias is None:
            return np.zeros(self.world.law.shape, bool)
        return self.bias.exploits(self.world)


def case(world: World, name: str) -> Case:
    """A case of CASES in a world. Words are chosen by how often the reference uses them."""
    if name == "honest":
        return Case(name, honest(world), None)
    if name == "rare word":
        bias: Bias = Keyword(words_near(world, 0.02)[0], 3.0)
    elif name == "common word":
        bias = Keyword(words_near(world, 0.2)[0], 1.0)
    elif name == "length":
        bias = Length(1.0)
    elif name == "light errors":
        bias = Errors(1.0)
    elif name == "heavy errors":
        bias = Errors(1.0, heavy=True)
    else:
        raise ValueError(f"there is no case {name!r}; there are {', '.join(CASES)}.")
    return Case(name, biased(world, bias), bias)


def honest(world: World) -> World:
    """The world itself, its training reward also being what is intended; runs are shared."""
    judges = {**world.judges, "intended": world.judges["training"]}
    return dataclasses.replace(world, judges=judges)


def runs_of(names: Sequence[str] = NAMES) -> list[Run]:
    """What is trained in every case."""
    missing = [name for name in names if name not in METHODS]
    if missing:
        raise ValueError(f"no such methods: {', '.join(missing)}.")
    return [run_of(name, AIMED, kl) for name in names for kl in TRAINED]
