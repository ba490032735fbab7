"""What is measured of a case: exact optima at many KLs, trained laws at one, sweeps of the bias."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.arena.planned import law_at
from benchmarks.arena.world import Split, World
from benchmarks.hacking.cases import NAMES, Case, honest
from benchmarks.hacking.judged import AIMED, Judged, compared, entry, ideal, judged, pooled, spared
from benchmarks.worlds.biased import Planted, biased

__all__ = ["GRID", "curves", "ideals", "sweep", "trained"]

GRID = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5)
"""KLs of the curves. Nats."""
SHARES = (0.02, 0.05, 0.2)
"""Of the reference's mass that a planted exploit has."""
SIZES = (0.0, 0.5, 1.0, 3.0, 10.0, 30.0)
"""What it earns. Standard deviations."""
REPLICATES = 4
"""Random choices of the exploit, averaged prompt by prompt."""


def judges(world: World) -> list[str]:
    """Those asked: the wrong reward, the right one, and an independent one where there is one."""
    return [name for name in ("training", "intended", "gold") if name in world.judges]


def ideals(case: Case, names: Sequence[str], kl: float) -> dict[str, Judged]:
    """The optimum of each method on the training prompts at a KL; those that reach it."""
    found = {}
    for name in names:
        law = ideal(case.world, name, kl)
        if law is not None:
            found[name] = judged(law, case.world, case.gamed, judges(case.world))
    return found


def against(found: Mapping[str, Judged], other: str = "raw") -> dict[str, Any]:
    """Entries, each with its paired difference to another method."""
    kept = {name: entry(one) for name, one in found.items()}
    for name, one in found.items():
        if name != other and other in found:
            kept[name][f"minus_{other}"] = compared(one, found[other])
    return kept


def curves(case: Case, names: Sequence[str], kls: Sequence[float] = GRID) -> dict[str, Any]:
    """Means over prompts of the optima, without errors: lists along `kls`."""
    kept: dict[str, Any] = {"kls": list(kls)}
    for name in names:
        rows = [ideals(case, [name], kl).get(name) for kl in kls]
        kept[name] = {
            f"{decoding} {judge}": [row and _mean(row.win_rates[decoding, judge]) for row in rows]
            for decoding in ("plain", "best-of-4")
            for judge in judges(case.world)
            if judge != "training"
        } | {"gamed": [row and _mean(row.gamed["plain"]) for row in rows]}
    return kept


def trained(
    case: Case, names: Sequence[str], split: Split, kls: Sequence[float]
) -> list[dict[str, Any]]:
    """Runs that were made, read at each KL that all of them can be read at."""
    rows = []
    for kl in kls:
        laws = {name: law_at(case.world, name, AIMED, split, kl) for name in names}
        laws = {name: law for name, law in laws.items() if law is not None}
        found = {
            name: judged(law, case.world, case.gamed, judges(case.world), split)
            for name, law in laws.items()
        }
        kept = against(found)
        for name, law in laws.items():
            best = ideal(case.world, name, kl) if split == "train" else None
            if best is not None:
                kept[name]["away"] = _mean(np.abs(law - best).sum(1) / 2)
        if kept:
            rows.append({"split": split, "kl": kl, "methods": kept})
    return rows


def sweep(
    world: World,
    kl: float,
    names: Sequence[str] = NAMES,
    shares: Sequence[float] = SHARES,
    sizes: Sequence[float] = SIZES,
    replicates: int = REPLICATES,
) -> list[dict[str, Any]]:
    """Optima at one KL while a planted exploit's share and size grow, judged by what is intended.

    A size of 0 is the right reward; from there `spared` tells how much less a method loses to the
    bias than raw reward does.
    """
    rows = []
    for share in shares:
        start: dict[str, Judged] = {}
        for size in sizes:
            some = [Planted(share, size, seed) for seed in range(replicates)]
            made = [
                Case("planted", biased(world, bias) if size else honest(world), bias)
                for bias in some
            ]
            found = [ideals(one, names, kl) for one in made]
            reached = [name for name in names if all(name in one for one in found)]
            means = {name: pooled([one[name] for one in found]) for name in reached}
            start = start or means
            kept = {
                name: _brief(one, start[name], means.get("raw", one), start.get("raw", one))
                for name, one in means.items()
            }
            mass = np.mean([(world.law * one.gamed).sum(1) for one in made])
            rows.append({"share": share, "mass": _mean(mass), "size": size, "methods": kept})
    return rows


def _brief(one: Judged, before: Judged, raw: Judged, raw_before: Judged) -> dict[str, Any]:
    now, saved = entry(one), spared(one, before, raw, raw_before)
    return {
        decoding: {
            "intended": now["win_rate"][decoding]["intended"],
            "spared": saved[decoding],
            "gamed": now["gamed"][decoding],
        }
        for decoding in ("plain", "best-of-4")
    }


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)
