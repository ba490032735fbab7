"""Claim 2: the measured win rate lies on the predicted curve, or it is known what keeps it off.

python -m benchmarks.prediction.run [--smoke] [--only-kept] [--worlds NAME ...] [--output FILE]

Runs are made once and kept; what is interrupted goes on by the same command.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena import runs as arena_runs
from benchmarks.arena.available import made_worlds
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
_VERSION = 1
"""Of rows that are kept; raised when predictions are made otherwise."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = _options(argv)
    cases = {"made": SMOKE} if options.smoke else {n: CASES[n] for n in options.worlds or CASES}
    worlds, absent = made_worlds(cases)
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
    if options.output or not (options.smoke or options.worlds):
        save(Path(options.output or HERE / "result.json"), result)
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

            key = run.path(calibrated).stem, procedure.name, split, COLUMNS, _VERSION
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


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prediction.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--smoke", action="store_true", help="seconds, a made world")
    parser.add_argument("--only-kept", action="store_true", help="read runs that are there")
    worlds = {"nargs": "+", "choices": list(CASES), "metavar": "WORLD"}
    parser.add_argument("--worlds", **worlds, help=f"of {', '.join(CASES)}; writes no result")
    parser.add_argument("--output", metavar="FILE", help="instead of result.json beside this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    program(main)
