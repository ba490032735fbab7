"""Claim 7: what a policy wins that is decoded otherwise than it was trained for is foreseen.

python -m benchmarks.mismatch.run [--smoke] [--only-kept] [--worlds NAME ...] [--output FILE]

Runs are made once and kept; what is interrupted goes on by the same command.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arena.asking import made_worlds, parsed, target
from benchmarks.arena.program import program
from benchmarks.arena.results import about, recorded, save
from benchmarks.arena.runs import ensure
from benchmarks.arena.world import Split
from benchmarks.mismatch.matrix import Matrix, measured_matrix, run_for
from benchmarks.prediction.cases import CASES, SMOKE
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN

__all__ = ["COLUMNS", "ROWS", "main"]

HERE = Path(__file__).parent
ROWS: tuple[RankProcedure, ...] = (
    *(BestOfN(n) for n in (1, 2, 4, 16)),
    *(WorstOfN(n) for n in (2, 4, 16)),
)
COLUMNS: tuple[RankProcedure, ...] = (
    *(BestOfN(n) for n in (1, 2, 4, 8, 16, 32)),
    *(WorstOfN(n) for n in (2, 4, 8, 16, 32)),
)
KLS: dict[str, float] = {"train": 1.0, "held-out": 0.3}
"""Compared at; new prompts are moved less."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = parsed("mismatch", __doc__, argv, CASES)
    cases = {"made": SMOKE} if options.smoke else {n: CASES[n] for n in options.worlds or CASES}
    rows, columns = (ROWS[:3:2], COLUMNS[:5]) if options.smoke else (ROWS, COLUMNS)
    worlds, absent = made_worlds({name: case.world for name, case in cases.items()})
    result: dict[str, Any] = {
        "about": about(seed=0, mode="smoke" if options.smoke else "full"),
        "absent": absent,
        "worlds": {name: world.about for name, world in worlds.items()},
        "left_out": [],
        "matrices": [],
    }
    for name, world in worlds.items():
        for number, procedure in enumerate(rows):
            if not (options.only_kept or cases[name].slow):
                print(f"{name}: {number}/{len(rows)}", procedure.name, file=sys.stderr, flush=True)
                ensure(world, [run_for(procedure)])
        for split in world.splits:
            matrix = measured_matrix(world, split, rows, columns, KLS[split])
            there = matrix.rows if matrix else ()
            if gone := [procedure.name for procedure in rows if procedure not in there]:
                where = {"world": name, "split": split, "kl": KLS[split]}
                result["left_out"].append(where | {"rows": gone})
            if matrix:
                result["matrices"].append(_told(name, split, matrix))
    if path := target(options, HERE):
        save(path, result)
    return result


def _told(name: str, split: Split, matrix: Matrix) -> dict[str, Any]:
    """The matrix, the planner's own, and what is to be said of both."""
    told = {"world": name, "split": split, **matrix.plain()}
    off = np.array(told["off"])
    row, column = np.unravel_index(np.abs(off).argmax(), off.shape)
    told["largest"] = {
        "trained_for": told["rows"][row],
        "decoded_by": told["columns"][column],
        **recorded(matrix.cells[row][column].deviation("planned")),
    }
    told["mean_off"] = round(float(np.abs(off).mean()), 5)
    told["mean_off_atoms"] = round(float(np.abs(told["off_atoms"]).mean()), 5)
    told["correlation"] = round(
        float(np.corrcoef(matrix.planned.ravel(), matrix.win_rates().ravel())[0, 1]), 5
    )
    told["choices"] = []
    for place, decoder in enumerate(told["columns"]):
        planned, best, loss = matrix.regret(place)
        choice = {"decoded_by": decoder, "among": len(told["rows"])}
        choice["planned"] = told["rows"][planned]
        told["choices"].append(choice | {"best": told["rows"][best], "loss": recorded(loss)})
    return told


if __name__ == "__main__":
    program(main)
