"""Which worlds are compared, decoded how, and which runs that takes, most telling first."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmarks.arena.planned import planned
from benchmarks.arena.runs import Run
from benchmarks.arena.world import Schedule, World
from benchmarks.methods import METHODS
from benchmarks.worlds.made import made
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN

__all__ = ["AGAIN", "CASES", "FOURS", "ORDER", "SMOKE", "Case", "names", "runs"]

NS = (2, 4, 16)
FOURS = (BestOfN(4), WorstOfN(4))
"""Where every method is run, on held-out prompts too."""
AGAIN = ("optimal", "raw", "identity")
"""Methods whose spread over seeds is shown, for best-of-4."""
ORDER = (
    "optimal", "raw", "identity", "max_at_n", "bonbon", "ipo", "normalised", "log_sigmoid",
    "exponential", "qrpo", "qrpo_published", "weighted_sft", "dpo", "vbon", "raft", "log",
    "max_reward_at_n",
)  # fmt: skip
"""In which methods are run and shown."""


def names(only: Sequence[str] | None = None) -> tuple[str, ...]:
    """All methods, or some, in the order in which they are shown."""
    chosen = METHODS if only is None else only
    known = [name for name in ORDER if name in chosen]
    return (*known, *(name for name in chosen if name not in known))


@dataclasses.dataclass(frozen=True)
class Case:
    """One world and the procedures it is decoded by."""

    world: Callable[[], World]
    """Makes it; raises FileNotFoundError where its data are missing."""
    procedures: tuple[RankProcedure, ...]
    """All are compared."""
    seeds: tuple[int, ...] = (0,)
    """The first is compared; the others show what another seed gives."""
    kls: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Compared at, on the prompts trained on."""
    held_out: tuple[float, ...] = ()
    """Compared at, on the others. Policies move less there."""
    only: tuple[str, ...] | None = None
    """Methods; None: all."""

    @property
    def names(self) -> tuple[str, ...]:
        """Methods compared."""
        return names(self.only)


def runs(case: Case, world: World) -> list[Run]:
    """What a case needs, most telling first, each once.

    Of the methods that know the procedure, all are run for N = 4 and `optimal` alone for others.
    """
    found: list[Run] = []
    for procedure in sorted(case.procedures, key=lambda one: one not in FOURS):
        wanted = case.names if procedure in FOURS else ("optimal",)
        found += planned(world, wanted, [procedure], case.seeds[:1])
    again = planned(world, AGAIN, FOURS[:1], case.seeds[1:])
    found += [run for run in again if run.label.endswith("kl1.1")]
    return list({(run.label, run.seed): run for run in found}.values())


def _world(module: str, name: str, **settings: Any) -> Callable[[], World]:
    """A world of benchmarks.worlds, imported when it is needed."""

    @functools.cache
    def make() -> World:
        return getattr(importlib.import_module(f"benchmarks.worlds.{module}"), name)(**settings)

    return make


def _small() -> World:
    """Few short runs."""
    return dataclasses.replace(
        made(prompts=24), schedule=Schedule(steps=150, learning_rate=0.2, prompts_per_step=None)
    )


BEST, WORST = tuple(map(BestOfN, NS)), tuple(map(WorstOfN, NS))
FEW = (
    "optimal", "raw", "identity", "max_at_n", "bonbon", "ipo", "normalised", "log_sigmoid",
    "exponential",
)  # fmt: skip
"""For worlds that are variations of another."""
SAMPLED = ("optimal", "raw", "identity", "normalised", "exponential")
"""For rollouts instead of the law: what calibration costs, where it is not free."""
CASES: Mapping[str, Case] = MappingProxyType(
    {
        "openings": Case(
            _world("openings", "openings"),
            BEST + WORST,
            seeds=(0, 1, 2),
            held_out=(0.2, 0.4, 0.7),
        ),
        "answers": Case(_world("answers", "answers"), BEST),
        "harmless": Case(_world("harmless", "harmless"), WORST),
        "judged_answers": Case(_world("answers", "judged_answers"), (BestOfN(4),), only=FEW),
        "answers-helpful_base": Case(
            _world("answers", "answers", source="helpful_base"), (BestOfN(4),), only=FEW
        ),
        "answers-k64": Case(_world("answers", "answers", k=64), (BestOfN(4),), only=SAMPLED),
    }
)
SMOKE = Case(_small, (BestOfN(4), WorstOfN(4)), kls=(0.5, 1.0), only=("optimal", "identity", "raw"))
"""Seconds, nothing fetched."""
