"""Methods side by side at one KL, and every run where it ended: what results and figures need."""

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.arena import ceiling, runs
from benchmarks.arena.measuring import Reading, compared, divergences, read, wins
from benchmarks.arena.pieces import piece
from benchmarks.arena.planned import run_of, strengths_in, way_at
from benchmarks.arena.runs import kept
from benchmarks.arena.world import Split, World
from benchmarks.methods import METHODS, Reinforced
from infalign.evaluation import Estimate, estimate
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.win_rate import frontier

__all__ = ["JUDGES", "aim", "at_one_kl", "comparisons", "described", "points"]

JUDGES = ("training", "gold", "judge", "vader")
"""Those that results speak of, where a world has them."""


def comparisons(
    world: World,
    names: Sequence[str],
    procedure: RankProcedure,
    split: Split,
    kls: Sequence[float],
    main: str = "optimal",
    seed: int = 0,
    judges: Sequence[str] = JUDGES,
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
    most = _ceiling(law, rewards, procedure, kls)
    records: list[dict[str, Any]] = [
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
            "methods": at_one_kl(world, names, procedure, split, kl, main, seed, judges),
        }
        for number, kl in enumerate(kls)
    ]
    for record in records:
        record["ceiling"] = most_found(record)
    return records


def most_found(record: Mapping[str, Any]) -> float:
    """The ceiling, or what was won above it: the search may miss it where W is not concave."""
    methods = record["methods"].values()
    won = [kept["training"]["win"] for kept in methods if "training" in kept]
    return max(record["ceiling"], *won, *(kept.get("aim", 0.0) for kept in methods))


def _ceiling(law, rewards, procedure, kls) -> list[float]:
    """Kept, since it takes longer than all the rest."""
    data = hashlib.sha256(law.round(9).tobytes() + rewards.round(6).tobytes()).hexdigest()
    sources = inspect.getsource(ceiling)
    settings = (data, repr(procedure), tuple(kls), sources)

    def make() -> list[float]:
        return ceiling.ceiling(law, rewards, procedure, kls).tolist()

    return piece("ceiling", procedure.name, settings, make, runs.FOLDER)


def at_one_kl(
    world: World,
    names: Sequence[str],
    procedure: RankProcedure,
    split: Split,
    kl: float,
    main: str = "optimal",
    seed: int = 0,
    judges: Sequence[str] = JUDGES,
) -> dict[str, Any]:
    """The `methods` of :func:`comparisons`."""
    found: dict[str, Any] = {name: {} for name in names}
    ways = {name: way_at(world, name, procedure, split, kl, seed) for name in names}
    for judge in _judges(world, judges):
        readings = {
            name: read(way[0], world, split, procedure, kl=kl, judge=judge, start=way[1])
            for name, way in ways.items()
            if way is not None
        }
        for name, reading in readings.items():
            if reading is not None:
                other = None if name == main else readings.get(main)
                found[name][judge] = _beside(reading, other)
    if split == "train":
        for name in names:
            if (aimed := aim(world, name, procedure, kl, seed)) is not None:
                found[name]["aim"] = round(float(aimed.mean()), 4)
    return {name: record for name, record in found.items() if record}


def _judges(world: World, wanted: Sequence[str]) -> list[str]:
    return [judge for judge in wanted if judge in world.judges]


def _beside(reading: Reading, main: Reading | None) -> dict[str, float]:
    record = _short("win", "se", reading.win_rate)
    if main is None:
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
    law, rewards = world.law[world.rows("train")], method.training_rewards(store)
    try:
        beta = beta_for_atoms_kl(law, rewards, kl)
    except ValueError:  # no tilt has that KL here
        return None
    return wins(tilt_atoms(law, rewards, beta), world, "train", procedure, "training")


def points(
    world: World,
    names: Iterable[str],
    procedures: Sequence[RankProcedure],
    splits: Sequence[Split] | None = None,
    seed: int = 0,
    judges: Sequence[str] = JUDGES,
) -> list[dict[str, Any]]:
    """Where each run ended by itself: KL reached, win rate by each judge, in order of KL."""
    found = []
    for name in names:
        for procedure in procedures:
            for split in splits or world.splits:
                ends = _ends(world, name, procedure, split, seed, _judges(world, judges))
                if ends["kl"]:
                    where = {"world": world.name, "split": split, "procedure": procedure.name}
                    found.append({**where, "method": name, **ends})
    return found


def _ends(world, name, procedure, split, seed, judges) -> dict[str, list[float]]:
    columns = ["kl", *(f"{judge}{end}" for judge in judges for end in ("", "_se"))]
    table, rows = [], world.rows(split)
    for strength in strengths_in(world, name, seed):
        try:
            law = kept(world, run_of(name, procedure, strength, seed))[rows]
        except FileNotFoundError:
            continue
        numbers = [float(divergences(law, world.law[rows]).mean())]
        for judge in judges:
            won = estimate(wins(law, world, split, procedure, judge))
            numbers += [won.value, won.se]
        table.append([round(number, 4) for number in numbers])
    whole = zip(*sorted(table), strict=True) if table else [()] * len(columns)
    return dict(zip(columns, map(list, whole), strict=True))


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
