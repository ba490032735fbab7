"""Estimators of decoded win rates and rewards, and what they cost; writes result.json.

python -m benchmarks.estimators.run [--smoke] [--output FILE] [--seed 0]
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # before numpy is loaded: one core

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arena.pieces import piece
from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.calibration.rollouts import skewed
from benchmarks.estimators.bias import Known, answers, continuous, errors, graded
from benchmarks.estimators.coverage import coverage
from benchmarks.estimators.rivals import verl_best
from benchmarks.estimators.speed import against, every_n
from benchmarks.worlds.data import MissingData, alpaca_eval

__all__ = ["main"]

HERE = Path(__file__).parent
SIZES = {8: (1, 2, 4, 8), 16: (1, 2, 4, 8, 16), 64: (1, 4, 16, 32, 64)}
"""m → the N that are estimated."""
MADE = 20_000
"""Prompts of a made law."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns what goes into the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds, on made laws")
    parser.add_argument("--output", type=Path, help="where the result goes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    result = _smoke(options.seed) if options.smoke else _full(options.seed)
    result["about"] = about(seed=options.seed, mode="smoke" if options.smoke else "full")
    if options.output or not options.smoke:
        save(options.output or HERE / "result.json", result)
    return result


def _smoke(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    known = answers(skewed(100, 57, rng))
    return {
        "errors": [
            *errors(continuous(4000), 16, (1, 4, 16), 1, rng),
            *errors(graded(4000), 16, (4,), 1, rng),
        ],
        "coverage": coverage(known, 16, (1, 4), 50, 400, rng, draws=20),
        "speed": {"every n": every_n(2000, 64, 1, rng, 1000), "against": against(1, 1, rng)},
    }


def _full(seed: int) -> dict[str, Any]:
    try:
        scores = alpaca_eval(null_model=False).scores
    except MissingData as missing:
        print(f"{missing} What needs it is left out.", file=sys.stderr)
        scores = None
    laws = [] if scores is None else [answers(scores)]
    laws += [continuous(MADE), graded(MADE)]
    result: dict[str, Any] = {"errors": [], "coverage": []}
    result["speed"] = piece("estimators", "speed", seed, lambda: _speed(seed))
    for known in laws:
        repeats = 40 if known.name == "AlpacaEval" else 2
        for m, ns in SIZES.items():
            make = functools.partial(_errors, known, m, ns, repeats, seed)
            settings = (known.name, known.data, MADE, m, ns, repeats, seed)
            result["errors"] += piece("estimators", f"errors-{known.name}-{m}", settings, make)
    if scores is not None:
        asked = (16, (1, 4, 16), 100, 4000)
        result["coverage"] = piece(
            "estimators",
            "coverage",
            (laws[0].data, asked, seed),
            lambda: coverage(laws[0], *asked, np.random.default_rng([seed, 1])),
        )
    return result


def _errors(known: Known, m: int, ns: Sequence[int], repeats: int, seed: int) -> list[Any]:
    return errors(known, m, ns, repeats, np.random.default_rng([seed, m]))


def _speed(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 2])
    return {
        "every n": every_n(1_000_000, 64, 3, rng),
        "against": against(7, 10, rng),
        "verl": verl_best() is not None,
    }


if __name__ == "__main__":
    program(main)
