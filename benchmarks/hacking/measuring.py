"""What is measured of a case: exact optima at many KLs, trained laws at one, sweeps of the bias."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.arena.measuring import stretch
from benchmarks.arena.planned import way_at
from benchmarks.arena.world import Split, World
from benchmarks.hacking.cases import NAMES, Case, honest
from benchmarks.hacking.judged import AIMED, Judged, entries, ideal, judged, pooled
from benchmarks.worlds.biased import Planted, biased

__all__ = ["GRID", "agreement", "curves", "ideals", "judges", "sweep", "trained"]

GRID = (0.25, 0.5, 1.0, 2.0)
"""KLs of the curves. Nats."""
SHARES = (0.02, 0.05, 0.2)
"""Of the reference's mass that a planted exploit has."""
SIZES = (0.0, 0.5, 1.0, 3.0, 10.0, 30.0)
"""What it earns. Standard deviations."""
REPLICATES = 4
"""Random choices of the exploit, averaged prompt by prompt."""


def judges(world: World) -> list[str]:
    """Those asked: what is intended, and an independent one where there is one."""
    return [name for name in ("intended", "gold") if name in world.judges]


def agreement(world: World) -> dict[str, float]:
    """How often the wrong reward orders two responses of the reference as another judge does."""
    rows = world.rows("train")
    law, wrong = world.law[rows], world.judges["training"][rows]
    pairs = np.einsum("pi,pj->pij", law, law)
    differs = np.sign(wrong[:, :, None] - wrong[:, None, :])
    kept = {}
    for name in judges(world):
        right = world.judges[name][rows]
        ordered = np.sign(right[:, :, None] - right[:, None, :])
        told_apart = (pairs * (ordered != 0)).sum((1, 2))
        same = (pairs * (1 + differs * ordered) / 2 * (ordered != 0)).sum((1, 2))
        kept[name] = round(float((same / told_apart)[told_apart > 0].mean()), 4)
    return kept


def ideals(
    case: Case, names: Sequence[str], kl: float, asked: Sequence[str] | None = None
) -> dict[str, Judged]:
    """The optimum of each method on the training prompts at a KL; those that reach it.

    By all judges that are not trained on, where not said which are `asked`.
    """
    asked = judges(case.world) if asked is None else asked
    found = {}
    for name in names:
        law = ideal(case.world, name, kl)
        if law is not None:
            found[name] = judged(law, case.world, case.gamed, asked)
    return found


def curves(case: Case, names: Sequence[str], kls: Sequence[float] = GRID) -> dict[str, Any]:
    """Means over prompts of the optima, without errors: lists along `kls`."""
    kept: dict[str, Any] = {"kls": list(kls)}
    for name in names:
        rows = [ideals(case, [name], kl, ["intended"]).get(name) for kl in kls]
        kept[name] = {
            f"{decoding} intended": [
                row and _mean(row.win_rates[decoding, "intended"]) for row in rows
            ]
            for decoding in ("plain", "best-of-4")
        } | {"gamed": [row and _mean(row.gamed["plain"]) for row in rows]}
    return kept


def trained(
    case: Case, names: Sequence[str], split: Split, kl: float
) -> tuple[dict[str, Judged], dict[str, float]]:
    """Runs that were made, judged at a KL, and the distance of each to its method's optimum.

    The distance is the mean total variation; on training prompts only.
    """
    world, found, away = case.world, {}, {}
    rows = world.rows(split)
    for name in names:
        way = way_at(world, name, AIMED, split, kl)
        if way is None:
            continue
        start = None if way[1] is None else way[1][rows]
        at = stretch(way[0][rows], world.law[rows], kl, start)
        if at is None:
            continue
        found[name] = judged(at[0], world, case.gamed, judges(world), split, at[1])
        best = ideal(world, name, kl) if split == "train" else None
        if best is not None:
            away[name] = _mean(np.abs(at[0] - best).sum(1) / 2)
    return found, away


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
    bias than its rivals do.
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
            found = [ideals(one, names, kl, ["intended"]) for one in made]
            reached = [name for name in names if all(name in one for one in found)]
            means = {name: pooled([one[name] for one in found]) for name in reached}
            start = start or means
            mass = np.mean([(world.law * one.gamed).sum(1) for one in made])
            about = {"share": share, "mass": _mean(mass), "size": size}
            rows.append(about | {"methods": _brief(entries(means, start))})
    return rows


def _brief(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without what the table and the figures do not need."""
    for name, one in found.items():
        one.pop("lost", None)
        if name == "normalised":
            one.pop("minus", None)
            one.pop("spared", None)
    return found


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)
