"""Which runs the claims need, named once so that they share them, and how one is read at a KL."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from benchmarks.arena.measuring import Reading, at_kl, divergences, read
from benchmarks.arena.runs import Run, kept
from benchmarks.arena.world import Split, World
from benchmarks.methods import METHODS, shows_best
from infalign.quantile.procedures import RankProcedure

__all__ = ["FARTHEST", "law_at", "planned", "reading_at", "run_of", "strengths_in"]

FARTHEST = 1.5
"""A run is read at a KL only if it reached at most this many times as much."""


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
    """What a method wins at a KL, from its nearest run at or above it; None where there is none.

    A trained policy is not converged in its far tails, so a law brought from KL 2.2 to 0.8 is not
    what training at 0.8 gives (identity: 0.849 instead of 0.822). Runs beyond FARTHEST times the
    KL are therefore not read, and runs that were not made are passed over.
    """
    law = _nearest(world, name, procedure, split, kl, seed)
    return None if law is None else read(law, world, split, procedure, kl=kl, judge=judge)


def law_at(
    world: World,
    name: str,
    procedure: RankProcedure,
    split: Split,
    kl: float,
    seed: int = 0,
) -> Float[np.ndarray, "P C"] | None:
    """The law that :func:`reading_at` reads, brought to the KL; rows of the split."""
    law, rows = _nearest(world, name, procedure, split, kl, seed), world.rows(split)
    return None if law is None else at_kl(law[rows], world.law[rows], kl)


def _nearest(
    world: World, name: str, procedure: RankProcedure, split: Split, kl: float, seed: int
) -> Float[np.ndarray, "P C"] | None:
    nearest = None
    for strength in strengths_in(world, name, seed):
        try:
            law, reached = _reached(world, run_of(name, procedure, strength, seed), split)
        except FileNotFoundError:
            continue
        if kl <= reached <= FARTHEST * kl and (nearest is None or reached < nearest[0]):
            nearest = reached, law
    return nearest and nearest[1]


def _reached(world: World, run: Run, split: Split) -> tuple[Float[np.ndarray, "P C"], float]:
    law, rows = kept(world, run), world.rows(split)
    return law, float(divergences(law[rows], world.law[rows]).mean())
