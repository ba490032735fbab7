"""Claim 1: at equal KL the optimal transform wins most after decoding.

python -m benchmarks.frontier.run [--smoke] [--only-kept] [--list-runs] [--worlds NAME ...]

Runs are made once and kept; what is interrupted goes on by the same command.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena.asking import made_worlds, parsed, target, told
from benchmarks.arena.comparing import JUDGES, at_one_kl, comparisons, described, points
from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.arena.runs import ensure
from benchmarks.arena.world import World
from benchmarks.frontier.cases import AGAIN, CASES, FOURS, SMOKE, Case, runs
from benchmarks.methods import METHODS
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.win_rate import frontier

__all__ = ["limits", "main"]

HERE = Path(__file__).parent
SEED = 0


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = parsed("frontier", __doc__, argv, CASES, lists=True)
    cases = {"made": SMOKE} if options.smoke else {n: CASES[n] for n in options.worlds or CASES}
    worlds, absent = made_worlds({name: case.world for name, case in cases.items()})
    if options.list_runs:
        list_runs(cases, worlds)
        return {}
    result: dict[str, Any] = {
        "about": about(seed=SEED, mode="smoke" if options.smoke else "full"),
        "titles": {name: entry.title for name, entry in METHODS.items()},
        "absent": absent,
        "worlds": {world.name: described(world) for world in worlds.values()},
        "limits": limits(procedure for case in cases.values() for procedure in case.procedures),
        "cases": [],
        "points": [],
        "seeds": [],
    }
    for name, world in worlds.items():
        if not options.only_kept:
            ensure(world, runs(cases[name], world), told(name))
        for part, found in measured(cases[name], world).items():
            result[part] += found
    if (text := HERE / "text.json").exists() and not options.smoke:
        result["text"] = json.loads(text.read_text(encoding="utf-8"))
    if path := target(options, HERE):
        save(path, result)
    return result


def measured(case: Case, world: World) -> dict[str, list[dict[str, Any]]]:
    """All that is said of a world, from the runs that are there."""
    found: dict[str, list[dict[str, Any]]] = {"cases": [], "points": [], "seeds": []}
    for procedure in case.procedures:
        whole = procedure in FOURS  # for other N a result has no room for every judge and split
        judges = JUDGES if whole else JUDGES[:1]
        kls = {"train": case.kls, "held-out": case.held_out if whole else ()}
        splits = [split for split in world.splits if kls[split]]
        for split in splits:
            side_by_side = comparisons(
                world, case.names, procedure, split, kls[split], judges=judges
            )
            found["cases"] += side_by_side
        found["points"] += points(world, case.names, [procedure], splits, judges=judges[:2])
    found["seeds"] = again(case, world) if len(case.seeds) > 1 else []
    return found


def again(case: Case, world: World) -> list[dict[str, Any]]:
    """What other adapters, batches and stores give, for best-of-4: one record a seed and split."""
    records = []
    for split, kl in (("train", 1.0), ("held-out", 0.4)):
        for seed in case.seeds:
            methods = at_one_kl(world, AGAIN, FOURS[0], split, kl, seed=seed)
            records.append(
                {
                    "world": world.name,
                    "split": split,
                    "procedure": FOURS[0].name,
                    "kl": kl,
                    "seed": seed,
                    "prompts": len(world.law[world.rows(split)]),
                    "main": "optimal",
                    "methods": methods,
                }
            )
    return [record for record in records if record["methods"]]


def limits(procedures: Iterable[RankProcedure]) -> dict[str, dict[str, list[float]]]:
    """The limit of continuous rewards against KL, for figures."""
    kls = [0.001, 0.01, 0.03, 0.07, 0.12, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5]
    return {
        procedure.name: {
            "kl": [0.0, *kls],
            "limit": [0.5, *(round(float(most), 4) for most in frontier(procedure, kls))],
        }
        for procedure in procedures
    }


def list_runs(cases: Mapping[str, Case], worlds: Mapping[str, World]) -> None:
    """Prints world, label, seed and whether it was made, most telling first."""
    for name, world in worlds.items():
        for run in runs(cases[name], world):
            state = "made" if run.path(world).exists() else "missing"
            print(f"{name}\t{run.label}\tseed {run.seed}\t{state}")


if __name__ == "__main__":
    program(main)
