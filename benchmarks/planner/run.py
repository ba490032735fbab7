"""Measures the planner against a damped fixed point and a convex solver; writes result.json.

python benchmarks/planner/run.py [--smoke] [--repeats 9] [--kls 0.5 2] [--output result.json]
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from baselines import ConvexProblem, FixedPoint, graded_grid, tuned

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    MetropolisHastings,
    Procedure,
    RandomCount,
    RankProcedure,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_poisson,
    median_of,
)
from infalign.quantile.solvers.stationary import residual
from infalign.quantile.win_rate import frontier

CASES: list[tuple[Procedure, float]] = [
    *((BestOfN(n), kl) for n in (2, 4, 16, 64) for kl in (0.5, 1.0, 2.0)),
    *((WorstOfN(n), kl) for n in (2, 4, 16, 64) for kl in (0.5, 1.0, 2.0)),
    (median_of(5), 0.5),
    (best_of_poisson(4.0), 0.5),
    (RewindAndRepeat(0.5, 4), 0.5),
    (SoftBestOfN(4, 0.1), 0.5),
    (MetropolisHastings(4), 0.5),
]
SMOKE = [(BestOfN(4), 0.5), (WorstOfN(4), 0.5)]
CELLS, FINEST = 200, 1e-4
"""Of the convex program: more cells cost more and gain little accuracy."""
CONVEX = "CLARABEL"
"""Fastest of Clarabel, ECOS and SCS that converges on all cases; see README.md."""
FINE, WANTED = 16_001, 1e-9
"""Points of the grid from which the fixed point's time at this error of W is extrapolated."""
FRONTIER = np.linspace(0.04, 4.0, 100)


def forget() -> None:
    """Empty every cache of the planner."""
    for name, module in sys.modules.items():
        if name.startswith("infalign.quantile"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def seconds(do: Callable[[], object]) -> float:
    """Processor time of one call: other people's work on the machine does not count."""
    start = time.process_time()
    do()
    return time.process_time() - start


def cold(procedure: Procedure, kl: float) -> float:
    """Everything anew."""
    forget()
    return seconds(lambda: optimal_transform(procedure, kl=kl))


def warm(procedure: Procedure, kl: float) -> float:
    """The procedure's curve known from an earlier question, as in any session; the law anew."""
    forget()
    optimal_transform(procedure, kl=kl * 1.01)
    return seconds(lambda: optimal_transform(procedure, kl=kl))


def checked(procedure: BestOfN | WorstOfN, kl: float) -> float:
    """The independent check of one law, which ours makes once for each curve."""
    law = optimal_transform(procedure, kl=kl).law_at_beta
    return seconds(lambda: residual(law, procedure, procedure))


def at_equal_accuracy(
    procedure: RankProcedure, exact: float, setting: dict[str, Any], given: dict[str, float]
) -> dict[str, float]:
    """Seconds of the fixed point to an error of WANTED: by how error and time grow with points."""
    walk = FixedPoint(procedure, setting["damping"], points=FINE, **given)
    limit, _, change = walk.walk(None, 0.0)
    if not change < 1e-9:
        return {}
    error = max(abs(limit - exact), 1e-12)
    took = seconds(lambda: walk.walk(limit, error))
    order = np.log(setting["error"] / error) / np.log((FINE - 1) / 4000)
    found = {"fine_error": error, "fine_seconds": took, "order": float(order)}
    if setting["error"] <= WANTED or order < 1.5:  # there already, or no law to extrapolate by
        return found
    return found | {"equal_seconds": took * float((error / WANTED) ** (1 / order))}


def contenders(
    procedure: Procedure, kl: float
) -> tuple[dict[str, Callable[[], float]], dict[str, Any]]:
    """What is timed on one case, by name, and what is known of each beforehand."""
    best = optimal_transform(procedure, kl=kl)
    about: dict[str, Any] = {"procedure": procedure.name, "kl": kl, "win_rate": best.win_rate}
    about |= {"beta": best.beta, "residual": best.residual}
    timed = {"ours, cold": lambda: cold(procedure, kl), "ours, warm": lambda: warm(procedure, kl)}
    for name, given in (("kl", {"kl": kl}), ("beta", {"beta": best.beta})):
        if not isinstance(procedure, RankProcedure) or isinstance(procedure, RandomCount):
            break  # it is slow to evaluate, and would not be the iteration that is timed
        setting = tuned(procedure, best.win_rate, **given)
        if setting is not None:
            setting |= at_equal_accuracy(procedure, best.win_rate, setting, given)
        about[f"fixed point, given {name}"] = setting
        if setting is not None:
            walk = FixedPoint(procedure, setting["damping"], **given)
            limit, error = setting["limit"], setting["error"]
            timed[f"fixed point, given {name}"] = lambda w=walk, t=limit, e=error: seconds(
                lambda: w.walk(t, e)
            )
    if isinstance(procedure, BestOfN) and CONVEX_AVAILABLE:
        convex = ConvexProblem(procedure, graded_grid(CELLS, FINEST), CONVEX)
        rate, _ = convex.solve(kl)  # compiles
        about["convex"] = {"solver": CONVEX, "cells": CELLS, "error": abs(rate - best.win_rate)}
        timed["convex"] = lambda: convex.solve(kl)[1]
    return timed, about


def measured(cases: list[tuple[Procedure, float]], repeats: int) -> list[dict[str, Any]]:
    """Median seconds of everything on every case, repeats interleaved."""
    rows = []
    for procedure, kl in cases:
        timed, about = contenders(procedure, kl)
        times: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(repeats):
            for name, once in timed.items():
                times[name].append(once())
        medians = {name: statistics.median(values) for name, values in times.items()}
        if isinstance(procedure, BestOfN | WorstOfN):
            checks = [checked(procedure, kl) for _ in range(repeats)]
            medians["the check"] = statistics.median(checks)
        rows.append({**about, "median_seconds": medians})
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """One row, readable."""
    cells = []
    for name, value in row["median_seconds"].items():
        about = row.get(name) or {}
        error, equal = about.get("error"), about.get("equal_seconds")
        cells.append(f"{name} {1e3 * value:.2f} ms" + (f" ({error:.0e})" if error else ""))
        cells[-1] += f" [{equal:.2g} s for {WANTED:.0e}]" if equal else ""
    return f"{row['procedure']:12} KL {row['kl']:<4} " + " · ".join(cells)


def whole_frontiers(repeats: int) -> dict[str, float]:
    """Median seconds of a frontier of 100 points from nothing."""

    def once(procedure: Procedure) -> float:
        forget()
        return seconds(lambda: frontier(procedure, FRONTIER.tolist()))

    chosen = (BestOfN(4), BestOfN(64), WorstOfN(4), WorstOfN(64))
    times = {p.name: statistics.median(once(p) for _ in range(repeats)) for p in chosen}
    for name, value in times.items():
        print(f"frontier of {len(FRONTIER)} points, {name}: {value:.3f} s", flush=True)
    return times


def finer_grids() -> list[dict[str, float]]:
    """What more accuracy costs the fixed point: best-of-4 at one nat, on finer and finer grids."""
    exact, rows = optimal_transform(BestOfN(4), kl=1.0).win_rate, []
    for points in (4001, 16001, 64001):
        walk = FixedPoint(BestOfN(4), 0.5, kl=1.0, points=points)
        limit = walk.walk(None, 0.0)[0]
        error = abs(limit - exact)
        time = statistics.median(seconds(lambda: walk.walk(limit, error)) for _ in range(3))  # noqa: B023
        rows.append({"points": points, "error": error, "seconds": time})
        print(
            f"fixed point on {points} points: error {error:.0e} in {1e3 * time:.1f} ms", flush=True
        )
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times as long as ours each other way takes: median and least over the cases."""
    found: dict[str, dict[str, float]] = {}
    for name in ("fixed point, given kl", "fixed point, given beta", "convex"):
        for ours in ("ours, cold", "ours, warm"):
            times = [row["median_seconds"] for row in rows if name in row["median_seconds"]]
            share = [t[name] / t[ours] for t in times]
            if share:
                key = f"{name} / {ours}"
                found[key] = {"median": statistics.median(share), "least": min(share)}
            equal = [
                row[name].get("equal_seconds", row["median_seconds"][name])
                / row["median_seconds"][ours]
                for row in rows
                if name != "convex" and row.get(name)
                if "equal_seconds" in row[name] or row[name]["error"] <= WANTED
            ]
            if equal:
                key = f"{name} at {WANTED:.0e} / {ours}"
                found[key] = {"median": statistics.median(equal), "least": min(equal)}
    return found


def environment() -> dict[str, Any]:
    """What it ran on."""
    names = ("numpy", "scipy", "cvxpy", "clarabel", "infalign")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "threads": 1,
        "load": os.getloadavg()[0],  # other people's; at the end
        "seed": None,  # nothing is random
    }


try:
    import cvxpy  # noqa: F401

    CONVEX_AVAILABLE = True
except ImportError:
    CONVEX_AVAILABLE = False


def main() -> None:
    """Measure, print, write."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--smoke", action="store_true", help="two cases, in seconds; writes nothing"
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--kls", type=float, nargs="*", help="only the cases of these KLs")
    parser.add_argument("--output", type=Path, default=here / "result.json")
    arguments = parser.parse_args()
    repeats = 2 if arguments.smoke else arguments.repeats
    if not CONVEX_AVAILABLE:
        print("cvxpy is not installed; without it there is no convex solver to compare with.")
    cases = [case for case in CASES if not arguments.kls or case[1] in arguments.kls]
    rows = measured(SMOKE if arguments.smoke else cases, repeats)
    result = {"environment": environment(), "repeats": repeats, "cases": rows}
    result |= {"ratios": ratios(rows), "finer_grids": finer_grids()}
    result |= {"frontier_seconds": whole_frontiers(min(repeats, 5))}
    for name, value in result["ratios"].items():
        print(f"{name}: median {value['median']:.1f}×, least {value['least']:.1f}×")
    if not arguments.smoke:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
