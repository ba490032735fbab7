"""Claim 2: the measured win rate lies on the predicted curve, or it is known what keeps it off.

python -m benchmarks.prediction.run [--smoke] [--only-kept] [--worlds NAME ...] [--output FILE]

Runs are made once and kept; what is interrupted goes on by the same command.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena import runs as arena_runs
from benchmarks.arena.asking import made_worlds, parsed, target
from benchmarks.arena.pieces import piece
from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.arena.runs import Run, ensure
from benchmarks.arena.world import Split, World
from benchmarks.prediction.cases import CASES, SMOKE, Case, decoded
from benchmarks.prediction.explained import explain
from benchmarks.prediction.recording import COLUMNS, row_of
from benchmarks.prediction.summary import summarised
from infalign.quantile.procedures import RankProcedure

__all__ = ["main"]

HERE = Path(__file__).parent
SEED = 0


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = parsed("prediction", __doc__, argv, CASES)
    cases = {"made": SMOKE} if options.smoke else {n: CASES[n] for n in options.worlds or CASES}
    worlds, absent = made_worlds({name: case.world for name, case in cases.items()})
    rows: list[list[Any]] = []
    left_out: list[dict[str, Any]] = []
    for name, world in worlds.items():
        makes = not (options.only_kept or cases[name].slow)
        found, missing = measured(name, cases[name], world, makes=makes)
        rows += found
        left_out += missing
    result = {
        "about": about(seed=SEED, mode="smoke" if options.smoke else "full"),
        "absent": absent,
        "left_out": left_out,
        "worlds": {name: world.about for name, world in worlds.items()},
        **summarised(rows),
        "columns": list(COLUMNS),
        "rows": rows,
    }
    if path := target(options, HERE):
        save(path, result)
    return result


def measured(
    name: str, case: Case, world: World, *, makes: bool
) -> tuple[list[list[Any]], list[dict[str, Any]]]:
    """A row for each run, procedure and split; and, by K, the cases whose run was not made.

    Runs that are missing are made only where that is asked for.
    """
    found: list[list[Any]] = []
    missing: dict[int | None, list[str]] = {}
    asked: Counter[int | None] = Counter()
    for calibrated, method, strength, procedure, run in decoded(case, world, SEED):
        asked[calibrated.k] += 1
        if not (makes or run.path(calibrated).exists()):
            missing.setdefault(calibrated.k, []).append(f"{run.label} decoded {procedure.name}")
            continue
        ensure(calibrated, [run])
        for split in calibrated.splits:

            def make(  # a function of this module: pieces are named by the code that makes them
                world: World = calibrated,
                split: Split = split,
                case: tuple[Any, ...] = (method, strength, procedure),
                run: Run = run,
            ) -> list[Any]:
                return _row(name, world, split, *case, run)

            key = run.path(calibrated).stem, procedure.name, split, COLUMNS
            label = f"{run.label}-{procedure.name}-{split}"
            found.append(piece("prediction", label, key, make, folder=arena_runs.FOLDER))
    left_out = [
        {"world": name, "k": k, "asked": asked[k], "missing": len(cases), "cases": cases}
        for k, cases in missing.items()
    ]
    return found, left_out


def _row(
    name: str,
    world: World,
    split: Split,
    method: str,
    strength: float,
    procedure: RankProcedure,
    run: Run,
) -> list[Any]:
    said = explain(world, run, split, procedure)
    return row_of(name, world, split, method, strength, procedure, said)


if __name__ == "__main__":
    program(main)
