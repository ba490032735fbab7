"""Calibration on AlpacaEval's answers and judge scores; writes result.json.

python -m benchmarks.calibration.run [--smoke] [--output FILE] [--seed 0]
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.arena.pieces import piece
from benchmarks.arena.program import program
from benchmarks.arena.results import about, recorded, save
from benchmarks.calibration.rollouts import compared, costs, digest, error_of_u, planned, skewed
from benchmarks.calibration.splits import Split
from benchmarks.calibration.uniform import (
    pull_to_half,
    rejected_prompts,
    spread_of,
    uniformity,
)
from benchmarks.worlds.data import MissingData, alpaca_eval
from infalign.evaluation import estimate
from infalign.quantile.ranks import count_ranks, quantiles

__all__ = ["main"]

NULL_MODEL = "NullModel"
HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    procedures: tuple[str, ...] = ("best_of_4", "best_of_16", "worst_of_4")
    kls: tuple[float, ...] = (0.5, 1.0, 2.0)
    ks: tuple[int, ...] = (4, 8, 16, 32, 57, 128)
    """Rollouts that calibrate."""
    judged: int = 25
    """Answers that are judged where calibrating answers are others."""
    apart: tuple[int, ...] = (4, 8, 16, 32)
    """Calibrating answers there."""
    compared: int = 57
    """Rollouts where calibrating is compared with not doing so."""
    uniform: tuple[int, ...] = (4, 8, 16, 32, 57)
    """K at which uniformity is tested."""
    repeats: int = 2
    """Draws for each prompt."""


SMOKE = Plan(("best_of_4",), (1.0,), (4, 16), 25, (4, 16), 57, (4, 16), 1)
MADE = Plan(kls=(1.0,))
WITH_NULL_MODEL = Plan(kls=(1.0,), ks=(16, 57), apart=(16,))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns what goes into the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds, on made scores")
    parser.add_argument("--output", type=Path, help="where the result goes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    result: dict[str, Any] = {}
    if options.smoke:
        scores = skewed(120, 57, np.random.default_rng([options.seed, 9]))
        result["made"] = _measured(scores, SMOKE, options.seed)
    else:
        try:
            result |= _full(Plan(), options.seed)
        except MissingData as missing:
            print(missing, file=sys.stderr)
            raise SystemExit(2) from None
    result["about"] = about(seed=options.seed, mode="smoke" if options.smoke else "full")
    if options.output or not options.smoke:
        save(options.output or HERE / "result.json", result)
    return result


def _full(plan: Plan, seed: int) -> dict[str, Any]:
    answers, all_answers = alpaca_eval(null_model=False), alpaca_eval()
    sets = {
        "answers": (answers.scores, plan),
        "made": (skewed(*answers.scores.shape, np.random.default_rng([seed, 9])), MADE),
        "with NullModel": (all_answers.scores, WITH_NULL_MODEL),
    }
    result: dict[str, Any] = {
        name: piece(
            "calibration", name, (digest(s), p, seed), lambda s=s, p=p: _measured(s, p, seed)
        )
        for name, (s, p) in sets.items()
    }
    asked = (plan.procedures, plan.kls, plan.ks)
    result["planner"] = piece("calibration", "planner", asked, lambda: planned(*asked))
    result["NullModel"] = _null_model(all_answers.scores, all_answers.models.index(NULL_MODEL))
    return result


def _measured(scores: Float[np.ndarray, "P C"], plan: Plan, seed: int) -> dict[str, Any]:
    """Everything about one set of scores."""
    rng = np.random.default_rng(seed)
    sizes = [k for k in plan.uniform if k <= scores.shape[1]]
    found: dict[str, Any] = {
        "prompts": len(scores),
        "systems": scores.shape[1],
        "share tied": _share_tied(scores),
        "uniform": {str(k): uniformity(scores, k, 20 * plan.repeats, rng) for k in sizes},
        "pull": {
            str(k): {
                w: recorded(e) for w, e in pull_to_half(scores, k, 2 * plan.repeats, rng).items()
            }
            for k in sizes
        },
        "rejected prompts": rejected_prompts(scores, rng, 5 * plan.repeats),
        "spread": spread_of(scores),
        "error of u": error_of_u(scores, (4, 8, 16, 32, 48), 2 * plan.repeats, rng),
    }
    rollouts = Split.rollouts(scores, max(*plan.ks, plan.compared), plan.repeats, rng)
    found["costs"] = _over(rollouts, plan, plan.ks)
    found["compared"] = [
        compared(rollouts, name, kl, plan.compared)
        for name in ("identity", *plan.procedures)
        for kl in plan.kls
    ]
    apart = Split.disjoint(scores, plan.judged, plan.repeats, rng)
    found["costs, apart"] = _over(apart, plan, plan.apart)
    return found


def _over(split: Split, plan: Plan, ks: Sequence[int]) -> list[dict[str, Any]]:
    names = [(name, kl) for name in plan.procedures for kl in plan.kls]
    return [row for name, kl in names for row in costs(split, name, kl, ks)]


def _share_tied(scores: Float[np.ndarray, "P C"]) -> float:
    """Of answers, those with the very score of another answer to the same prompt."""
    _, ties = count_ranks(np.sort(scores, axis=1), np.arange(len(scores)), scores)
    return float((ties > 1).mean())


def _null_model(scores: Float[np.ndarray, "P C"], column: int) -> dict[str, Any]:
    """Where one constant answer that fools the judge stands among the others."""
    own = scores[:, [column]]
    others = np.sort(np.delete(scores, column, axis=1), axis=1)
    u = quantiles(*count_ranks(others, np.arange(len(others)), own), others.shape[1])[:, 0]
    return {
        "score": recorded(estimate(own[:, 0])),
        "quantile": recorded(estimate(u)),
        "on top": float((u == 1).mean()),
        "quantile at 10, 50, 90 %": np.quantile(u, [0.1, 0.5, 0.9]).tolist(),
    }


if __name__ == "__main__":
    program(main)
