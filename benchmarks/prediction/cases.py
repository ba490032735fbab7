"""Which worlds are predicted, decoded how, and with how many rollouts to calibrate."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from benchmarks.arena.planned import run_of, strengths_in
from benchmarks.arena.runs import Run
from benchmarks.arena.world import Schedule, World
from benchmarks.worlds.made import made
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN

__all__ = ["CASES", "METHODS_ASKED", "SMOKE", "Case", "decoded", "fine"]

METHODS_ASKED = ("optimal", "exponential", "identity", "log")
"""Those with a transform: the theory on [0,1] speaks of no other."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A world, with procedures by the number of rollouts that calibrate."""

    world: Callable[[], World]
    """Makes it; raises FileNotFoundError where what it needs is missing."""
    procedures: Mapping[int | None, tuple[RankProcedure, ...]]
    """K (None: calibrated exactly) → procedures that decode."""
    slow: bool = False
    """A minute a run: nothing is made, what other claims made is read."""
    methods: tuple[str, ...] = METHODS_ASKED
    """By name."""
    least: float = 0.0
    """Strengths below are left out. Nats."""
    most: float = 3.0
    """Strengths above are left out. Nats."""

    def strengths(self, world: World, name: str) -> tuple[float, ...]:
        """How far a method is sent."""
        return tuple(kl for kl in strengths_in(world, name) if self.least <= kl <= self.most)


def fine(prompts: int = 48, responses: int = 256) -> World:
    """So many equally ordinary responses that rewards are as good as continuous."""
    world = made(prompts, responses, seed=1)
    return dataclasses.replace(
        world,
        name="fine",
        about=f"made: {prompts} prompts, {responses} responses each, a free logit for every one",
    )


def decoded(
    case: Case, world: World, seed: int = 0
) -> Iterator[tuple[World, str, float, RankProcedure, Run]]:
    """(world with its K, method, strength, procedure, run): all that is predicted.

    What is trained for a procedure is decoded by it; identity and log by all.
    """
    for k, procedures in case.procedures.items():
        calibrated = world if k == world.k else dataclasses.replace(world, k=k)
        for name in case.methods:
            for strength in case.strengths(calibrated, name):
                for procedure in procedures:
                    run = run_of(name, procedure, strength, seed)
                    yield calibrated, name, strength, procedure, run


def _world(name: str) -> Callable[[], World]:
    @functools.cache
    def make() -> World:
        return getattr(importlib.import_module(f"benchmarks.worlds.{name}"), name)()

    return make


def _small() -> World:
    """Eight prompts and short runs."""
    schedule = Schedule(steps=200, learning_rate=0.2, prompts_per_step=None)
    return dataclasses.replace(fine(8, 96), name="made", schedule=schedule)


BEST, WORST = (BestOfN(2), BestOfN(4), BestOfN(16)), (WorstOfN(2), WorstOfN(4), WorstOfN(16))
CASES: Mapping[str, Case] = MappingProxyType(
    {
        "fine": Case(
            functools.cache(fine),
            {None: (BestOfN(4), WorstOfN(4)), 16: (BestOfN(4),), 64: (BestOfN(4),)},
        ),
        "answers": Case(_world("answers"), {None: BEST, 16: (BestOfN(4),), 64: (BestOfN(4),)}),
        "harmless": Case(_world("harmless"), {None: WORST, 16: (WorstOfN(4),), 64: (WorstOfN(4),)}),
        "openings": Case(_world("openings"), {None: BEST + WORST, 64: (BestOfN(4),)}, slow=True),
    }
)
SMOKE = Case(
    _small,
    {k: (BestOfN(4),) for k in (None, 16)},
    methods=("optimal", "identity"),
    least=1.0,
    most=1.5,
)
"""Seconds, nothing fetched."""
