"""Solves the optimal transform on the whole grid, checks it, and writes result.json.

python -m benchmarks.optimal_transform.run [--smoke] [--output result.json]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN, median_of
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Identity, Log
from infalign.quantile.win_rate import win_rate

KLS = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
ROWS: list[tuple[RankProcedure, float]] = [
    (BestOfN(2), 0.5),
    (BestOfN(4), 0.5),
    (BestOfN(4), 1.0),
    (BestOfN(8), 1.0),
    (BestOfN(16), 2.0),
    (WorstOfN(2), 0.5),
    (WorstOfN(4), 0.5),
    (median_of(5), 0.5),
]
TRANSFORMS = {
    "identity": Identity(),
    "log": Log(),
    "exp(10)": Exponential(10.0),
    "exp(-10)": Exponential(-10.0),
}


def table(rows: Sequence[tuple[RankProcedure, float]]) -> list[dict[str, Any]]:
    """Win rate of each transform at equal KL: the reference table of `docs/theory.md`."""
    found = []
    for procedure, kl in rows:
        best = optimal_transform(procedure, kl=kl)
        wins = {
            name: win_rate(TiltedPolicy(transform, beta_for_kl(transform, kl)), procedure)
            for name, transform in TRANSFORMS.items()
        }
        wins["optimal"] = best.win_rate
        found.append({"procedure": procedure.name, "kl": kl, "win_rate": wins, "beta": best.beta})
    return found


def grid(family: type[BestOfN] | type[WorstOfN], ns: Sequence[int]) -> dict[str, Any]:
    """Largest residual of the independent check at each KL, and the time of a solution."""
    worst, seconds = dict.fromkeys(KLS, 0.0), []
    for n in ns:
        for kl in KLS:
            before = time.process_time()
            worst[kl] = max(worst[kl], optimal_transform(family(n), kl=kl).residual)
            seconds.append(time.process_time() - before)
    return {
        "laws": len(seconds),
        "seconds": sum(seconds),
        "slowest": max(seconds),
        "largest residual": {f"{kl:g}": residual for kl, residual in worst.items()},
    }


def envelope(ns: Sequence[int]) -> dict[str, Any]:
    """Largest relative error of dW*/dKL = β."""
    errors = []
    for family in (BestOfN, WorstOfN):
        for n in ns:
            for kl in KLS:
                low, here, high = (
                    optimal_transform(family(n), kl=kl * f) for f in (0.999, 1, 1.001)
                )
                if 1 - high.win_rate > 1e-9:  # else the difference has no digits left
                    slope = (high.win_rate - low.win_rate) / (high.kl - low.kl)
                    errors.append(abs(slope / here.beta - 1))
    return {"laws": len(errors), "largest relative error": float(np.max(errors))}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, prints where it stands, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="N = 2 and 4; writes nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args(argv)
    ns = (2, 4) if options.smoke else range(1, 65)
    result: dict[str, Any] = {"about": about(seed=0, mode="smoke" if options.smoke else "full")}
    result["table"] = table(ROWS[:2] if options.smoke else ROWS)
    for family in (BestOfN, WorstOfN):
        result[family.__name__] = grid(family, ns)
        print(f"{family.__name__}: {result[family.__name__]}", file=sys.stderr)
    result["envelope"] = envelope(ns if options.smoke else (1, 2, 4, 8, 16, 32, 64))
    if not options.smoke:
        save(options.output, result)
    return result


if __name__ == "__main__":
    program(main)
