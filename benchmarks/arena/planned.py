"""Which runs the claims need, named once so that they share them, and how they are read at a KL."""

import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from benchmarks.arena.measuring import Reading, at_kl, divergences, read
from benchmarks.arena.runs import Run, kept
from benchmarks.arena.world import Split, World
from benchmarks.methods import METHODS, shows_best
from infalign.quantile.procedures import RankProcedure

__all__ = [
    "FARTHEST", "NEIGHBOURS", "law_at", "planned", "reading_at", "run_of", "strengths_in", "way_at",
]  # fmt: skip

FARTHEST = 1.5
"""A run alone is read at a KL only if it reached at most this many times as much."""
NEIGHBOURS = 4.0
"""Two runs are read in between only if the KL of one is at most this many times the other's."""


@functools.cache
def run_of(name: str, procedure: RankProcedure, strength: float, seed: int = 0) -> Run:
    """A method of METHODS, made for a procedure at a strength.

    Methods that know no procedure share one run between all, labelled `any`; those that know only
    which end of the ranks is shown share one for each, `best` and `worst`.

    Example:
        >>> from infalign import BestOfN
        >>> run_of("optimal", BestOfN(4), 1.1).label, run_of("identity", BestOfN(4), 1.1).label
        ('optimal-best-of-4-kl1.1', 'identity-any-kl1.1')
    """
    entry = METHODS[name]
    end = "best" if shows_best(procedure) else "worst"
    meant = procedure.name if entry.aware else end if entry.one_sided else "any"
    label = f"{name}-{meant}-{entry.dial}{strength:g}"
    return Run(label, entry.make(procedure, strength), seed)


def strengths_in(world: World, name: str, seed: int = 0) -> tuple[float, ...]:
    """How far a method is sent in a world: its strengths, less KLs that no tilt can have there.

    The largest KL of a tilt is that of always giving a response of the largest reward.
    """
    entry = METHODS[name]
    if entry.dial != "kl":
        return entry.strengths
    store = world.store(seed)
    rewards = np.where(store.masses > 0, store.rewards, -np.inf)
    best = rewards == rewards.max(1, keepdims=True)
    most = float(-np.log((store.masses * best).sum(1)).mean())
    return tuple(kl for kl in entry.strengths if kl < 0.95 * most)


def planned(
    world: World,
    names: Iterable[str],
    procedures: Sequence[RankProcedure],
    seeds: Sequence[int] = (0,),
) -> list[Run]:
    """The runs of some methods for some procedures, each once, whole methods one after another.

    Args:
        world: Where; leaves out strengths that it has no room for.
        names: Of METHODS.
        procedures: Those decoded with. Methods that know none are trained once for all.
        seeds: Of the adapter, the batches and the store.
    """
    runs = {
        (run.label, seed): run
        for name in names
        for seed in seeds
        for procedure in procedures
        for strength in strengths_in(world, name, seed)
        for run in [run_of(name, procedure, strength, seed)]
    }
    return list(runs.values())


def reading_at(
    world: World,
    name: str,
    procedure: RankProcedure,
    split: Split,
    kl: float,
    judge: str = "training",
    seed: int = 0,
) -> Reading | None:
    """What a method wins at a KL, from the runs next to it; None where there are none.

    A trained policy is not converged in its far tails, so a law brought from KL 2.2 to 0.8 is not
    what training at 0.8 gives (identity: 0.849 instead of 0.822). So the nearest run at or above
    the KL is brought there if it reached at most FARTHEST times as much; else it is met on the way
    from the nearest run below, π₁^(1−λ)·π₂^λ/Z, which for converged tilts is training in between.
    Runs that were not made are passed over.
    """
    way = way_at(world, name, procedure, split, kl, seed)
    if way is None:
        return None
    return read(way[0], world, split, procedure, kl=kl, judge=judge, start=way[1])


def law_at(
    world: World,
    name: str,
    procedure: RankProcedure,
    split: Split,
    kl: float,
    seed: int = 0,
) -> Float[np.ndarray, "P C"] | None:
    """The law that :func:`reading_at` reads, brought to the KL; rows of the split."""
    way, rows = way_at(world, name, procedure, split, kl, seed), world.rows(split)
    if way is None:
        return None
    start = None if way[1] is None else way[1][rows]
    return at_kl(way[0][rows], world.law[rows], kl, start)


def way_at(
    world: World, name: str, procedure: RankProcedure, split: Split, kl: float, seed: int = 0
) -> tuple[Float[np.ndarray, "P C"], Float[np.ndarray, "P C"] | None] | None:
    """The nearest law at or above the KL, and the one to come from: None is the reference.

    Over all prompts; see :func:`reading_at`.
    """
    runs = sorted(_reached(world, name, procedure, split, seed), key=lambda pair: pair[0])
    above = [(reached, law) for reached, law in runs if reached >= kl]
    below = [(reached, law) for reached, law in runs if reached < kl]
    if not above:
        return None
    reached, law = above[0]
    if reached <= FARTHEST * kl:
        return law, None
    if not below or reached > NEIGHBOURS * below[-1][0]:
        return None
    return law, below[-1][1]


def _reached(
    world: World, name: str, procedure: RankProcedure, split: Split, seed: int
) -> Iterator[tuple[float, Float[np.ndarray, "P C"]]]:
    """Mean KL and law of every run there is."""
    rows = world.rows(split)
    for strength in strengths_in(world, name, seed):
        try:
            law = kept(world, run_of(name, procedure, strength, seed))
        except FileNotFoundError:
            continue
        yield float(divergences(law[rows], world.law[rows]).mean()), law
