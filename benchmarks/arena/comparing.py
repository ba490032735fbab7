"""Methods side by side at one KL, and every run where it ended: what results and figures need."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.arena.ceiling import ceiling
from benchmarks.arena.measuring import Reading, compared, read, wins
from benchmarks.arena.planned import reading_at, run_of, strengths_in
from benchmarks.arena.runs import kept
from benchmarks.arena.world import Split, World
from benchmarks.methods import METHODS, Reinforced
from infalign.evaluation import Estimate
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.tilting import tilt_atoms
from infalign.quantile.win_rate import frontier

__all__ = ["JUDGES", "aim", "comparisons", "described", "points"]

JUDGES = ("training", "gold", "judge")
"""Those that results speak of, where a world has them."""


def comparisons(
    world: World,
    names: Sequence[str],
    procedure: RankProcedure,
    split: Split,
    kls: Sequence[float],
    main: str = "optimal",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What each method wins at each KL, and by how much `main` is ahead of it, paired by prompt.

    Returns:
        One record per KL: `limit` of continuous rewards, `ceiling` of the listed ones, and under
        `methods`, by name and judge, `win` and `ahead` (of `main` over it) with standard errors
        `se` and `ahead_se`. A method without a run near the KL is not there. `aim` is what the
        exact optimum of a method wins at that KL by the training reward, whatever training did.
    """
    rows = world.rows(split)
    law, rewards = world.law[rows], world.judges["training"][rows]
    most = ceiling(law, rewards, procedure, kls)
    return [
        {
            "world": world.name,
            "split": split,
            "procedure": procedure.name,
            "kl": kl,
            "seed": seed,
            "prompts": len(law),
            "limit": round(float(frontier(procedure, [kl])[0]), 5),
            "ceiling": round(float(most[number]), 5),
            "main": main,
            "methods": _methods(world, names, procedure, split, kl, main, seed),
        }
        for number, kl in enumerate(kls)
    ]


def _methods(world, names, procedure, split, kl, main, seed) -> dict[str, Any]:
    found: dict[str, Any] = {name: {} for name in names}
    for judge in JUDGES:
        if judge not in world.judges:
            continue
        at = {n: reading_at(world, n, procedure, split, kl, judge, seed) for n in names}
        readings = {name: reading for name, reading in at.items() if reading is not None}
        for name, reading in readings.items():
            found[name][judge] = _beside(reading, readings.get(main), name == main)
    if split == "train":
        for name in names:
            if (won := aim(world, name, procedure, kl, seed)) is not None:
                found[name]["aim"] = round(float(won.mean()), 4)
    return {name: record for name, record in found.items() if record}


def _beside(reading: Reading, main: Reading | None, is_main: bool) -> dict[str, float]:
    record = _short("win", "se", reading.win_rate)
    if main is None or is_main:
        return record
    return record | _short("ahead", "ahead_se", compared(main, reading))


def _short(value: str, se: str, estimate: Estimate) -> dict[str, float]:
    return {value: round(estimate.value, 4), se: round(estimate.se, 4)}


def aim(
    world: World, name: str, procedure: RankProcedure, kl: float, seed: int = 0
) -> Float[np.ndarray, "P"] | None:
    """What the exact optimum of a method wins on the training prompts; None if it is no tilt."""
    entry, store = METHODS[name], world.store(seed)
    if entry.dial != "kl" or not isinstance(method := entry.make(procedure, kl), Reinforced):
        return None
    try:
        beta = method.beta(store)
    except ValueError:  # no tilt has that KL here
        return None
    law = tilt_atoms(store.masses, method.training_rewards(store), beta)
    return wins(law, world, "train", procedure, "training")


def points(
    world: World,
    names: Iterable[str],
    procedures: Sequence[RankProcedure],
    splits: Sequence[Split] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Where each run ended by itself: KL reached, win rate by each judge, in order of KL."""
    found = []
    for name in names:
        for procedure in procedures:
            for split in splits or world.splits:
                ends = _ends(world, name, procedure, split, seed)
                if ends["kl"]:
                    where = {"world": world.name, "split": split, "procedure": procedure.name}
                    found.append({**where, "method": name, **ends})
    return found


def _ends(world, name, procedure, split, seed) -> dict[str, list[float]]:
    judges = [judge for judge in JUDGES if judge in world.judges]
    rows = []
    for strength in strengths_in(world, name, seed):
        try:
            law = kept(world, run_of(name, procedure, strength, seed))
        except FileNotFoundError:
            continue
        readings = [read(law, world, split, procedure, judge=judge) for judge in judges]
        estimates = [reading.win_rate for reading in readings if reading]
        numbers = [number for e in estimates for number in (e.value, e.se)]
        rows.append([round(number, 4) for number in (readings[0].kl, *numbers)])
    columns = ["kl", *(f"{judge}{end}" for judge in judges for end in ("", "_se"))]
    table = zip(*sorted(rows), strict=True) if rows else [()] * len(columns)
    return dict(zip(columns, map(list, table), strict=True))


def described(world: World) -> dict[str, Any]:
    """What a world is, for results."""
    schedule = world.schedule
    return {
        "about": world.about,
        "prompts": world.trained,
        "held_out": len(world.prompts) - world.trained,
        "responses": int(world.law.shape[1]),
        "steps": schedule.steps,
        "prompts_per_step": schedule.prompts_per_step,
        "rollouts": world.k,
    }
