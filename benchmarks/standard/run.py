"""Claim 6: calibration alone is a strong method for the ordinary win rate.

python -m benchmarks.standard.run [--smoke] [--only-kept]

One answer each, no selection: N = 1. Nearly all runs are those of benchmarks/frontier.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena.asking import made_worlds, parsed, target, told
from benchmarks.arena.comparing import comparisons, described, points
from benchmarks.arena.planned import planned
from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.arena.runs import ensure
from benchmarks.arena.world import World
from benchmarks.frontier import cases as frontier_cases
from benchmarks.frontier.cases import Case
from benchmarks.frontier.run import limits
from benchmarks.methods import METHODS
from infalign.quantile.procedures import Identity

__all__ = ["NAMES", "main"]

HERE = Path(__file__).parent
SEED = 0
ONE = Identity()
NAMES = (
    "identity", "raw", "normalised", "log_sigmoid", "ipo", "dpo", "bonbon", "vbon", "raft",
    "weighted_sft", "log",
)  # fmt: skip
"""Those that know no procedure."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = parsed("standard", __doc__, argv)
    cases = {"made": frontier_cases.SMOKE} if options.smoke else frontier_cases.CASES
    names = ("identity", "raw") if options.smoke else [n for n in NAMES if n in METHODS]
    worlds, absent = made_worlds({name: case.world for name, case in cases.items()})
    result: dict[str, Any] = {
        "about": about(seed=SEED, mode="smoke" if options.smoke else "full"),
        "titles": {name: METHODS[name].title for name in names},
        "absent": absent,
        "worlds": {world.name: described(world) for world in worlds.values()},
        "limits": limits([ONE]),
        "cases": [],
        "points": [],
    }
    for name, world in worlds.items():
        if not options.only_kept:
            ensure(world, planned(world, names, [ONE]), told(name))
        for part, found in measured(cases[name], world, names).items():
            result[part] += found
    if path := target(options, HERE):
        save(path, result)
    return result


def measured(case: Case, world: World, names: Sequence[str]) -> Mapping[str, list[dict[str, Any]]]:
    """Ordinary win rates, `identity` against each other method."""
    kls = {"train": case.kls, "held-out": case.held_out}
    found = [
        record
        for split in world.splits
        for record in comparisons(world, names, ONE, split, kls[split], "identity")
    ]
    return {"cases": found, "points": points(world, names, [ONE])}


if __name__ == "__main__":
    program(main)
