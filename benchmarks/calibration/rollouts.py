"""How many answers calibration needs, plain against posterior mean, and global calibration."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.arena.results import recorded
from benchmarks.calibration.splits import Split, Won
from infalign.evaluation import estimate, paired_difference
from infalign.quantile.finite import finite_frontier
from infalign.quantile.names import procedure_from_name
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.ranks import count_ranks, quantiles
from infalign.quantile.transforms import Exponential, Transform
from infalign.quantile.transforms import Identity as IdentityTransform
from infalign.quantile.win_rate import frontier

__all__ = [
    "compared",
    "costs",
    "digest",
    "error_of_u",
    "planned",
    "rank_procedure",
    "skewed",
    "transforms_of",
]


def rank_procedure(name: str) -> RankProcedure:
    """A rank procedure by name, such as `best_of_4`; `identity` is the answer itself."""
    procedure = procedure_from_name(name)
    assert isinstance(procedure, RankProcedure)
    return procedure


def transforms_of(name: str, kl: float) -> dict[str, Transform]:
    """Those of a procedure: the optimal one at this KL, and the paper's exponential."""
    procedure = rank_procedure(name)
    t = -10 if name.startswith("worst") else 10
    return {"optimal": optimal_transform(procedure, kl=kl), "exponential": Exponential(t)}


def costs(split: Split, name: str, kl: float, ks: Sequence[int]) -> list[dict[str, Any]]:
    """Win rates of plain and posterior mean with K calibrating answers, and what perfect ones win.

    `cost` is the ideal's minus the posterior mean's, `gain` the posterior mean's minus the plain
    one's: paired by prompt, at equal mean KL.
    """
    procedure, rows = rank_procedure(name), []
    for transform_name, transform in transforms_of(name, kl).items():
        ideal = split.won(split.ideal(transform), procedure, kl)
        for k in ks:
            plain = split.won(split.plain(transform, k), procedure, kl)
            posterior = split.won(split.posterior(transform, k), procedure, kl)
            if ideal is None or plain is None or posterior is None:
                continue
            row = {"procedure": name, "kl": kl, "transform": transform_name, "k": k}
            row |= {"ideal": _of(ideal), "plain": _of(plain), "posterior": _of(posterior)}
            row["cost"] = _difference(ideal, posterior)
            row["gain"] = _difference(posterior, plain)
            rows.append(row)
    return rows


def compared(split: Split, name: str, kl: float, k: int) -> dict[str, Any]:
    """Training on the calibrated reward against what is done without calibrating each prompt.

    All at equal mean KL: Φ of the posterior, Φ of a global quantile, the raw reward itself, and the
    raw reward standardised by the prompt's own answers.
    """
    procedure = rank_procedure(name)
    transform = IdentityTransform() if name == "identity" else transforms_of(name, kl)["optimal"]
    ways = {
        "calibrated": split.posterior(transform, k),
        "global": transform(split.pooled(k)),
        "raw": split.judged,
        "standardised": split.standardised(k),
    }
    won = {way: split.won(training, procedure, kl) for way, training in ways.items()}
    row: dict[str, Any] = {"procedure": name, "kl": kl, "k": k, "ways": {}, "differences": {}}
    for way, result in won.items():
        if result is None:
            continue
        spread = np.quantile(result.kl, [0.1, 0.5, 0.9]).round(4).tolist()
        row["ways"][way] = _of(result) | {"kl at 10, 50, 90 %": spread}
        if way != "calibrated" and won["calibrated"] is not None:
            row["differences"][way] = _difference(won["calibrated"], result)
    return row


def error_of_u(
    scores: Float[np.ndarray, "P C"], ks: Sequence[int], repeats: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """RMS error of û with K calibrating answers, against √(1/(6K)) of a continuous reward.

    The truth is only known as the quantile among all M other answers, of which K are drawn without
    replacement; so the squared difference from it is (1 − K/M) of the squared error against an
    endless supply of answers, which is what is given.
    """
    systems = scores.shape[1]
    others = systems - 1
    below, ties = count_ranks(np.sort(scores, axis=1), np.arange(len(scores)), scores)
    true = quantiles(below, ties - 1, others)
    squares = {k: np.zeros(len(scores)) for k in ks}
    for _ in range(repeats):
        columns = rng.permuted(np.tile(np.arange(systems), (len(scores), 1)), axis=1)
        order, u = (np.take_along_axis(table, columns, 1) for table in (scores, true))
        for k in ks:
            known = np.sort(order[:, 1 : k + 1], axis=1)
            estimated = quantiles(*count_ranks(known, np.arange(len(known)), order[:, :1]), k)
            squares[k] += ((estimated - u[:, :1]) ** 2)[:, 0] / repeats
    return [_error(k, squares[k] / (1 - k / others)) for k in ks]


def _error(k: int, squared: Float[np.ndarray, "P"]) -> dict[str, float]:
    mean = estimate(squared)
    root = float(np.sqrt(mean.value))
    return {"k": k, "rms": root, "se": mean.se / (2 * root), "continuous": float((6 * k) ** -0.5)}


def planned(names: Sequence[str], kls: Sequence[float], ks: Sequence[int]) -> list[dict[str, Any]]:
    """What the planner says of K rollouts and the optimal transform, for a continuous reward."""
    rows = []
    for name in names:
        procedure = rank_procedure(name)
        for kl in kls:
            perfect = float(frontier(procedure, [kl])[0])
            for k in ks:
                row = {"procedure": name, "kl": kl, "k": k, "perfect": perfect}
                try:
                    row["finite"] = float(finite_frontier("optimal", procedure, k, [kl])[0])
                except ValueError:  # K rollouts carry no such KL
                    continue
                rows.append(row)
    return rows


def skewed(prompts: int, systems: int, rng: np.random.Generator) -> Float[np.ndarray, "P C"]:
    """Made scores without ties: prompts differ in ease and spread, systems in quality."""
    ease = rng.normal(-6, 3, (prompts, 1))
    spread = np.exp(rng.normal(0.7, 0.5, (prompts, 1)))
    quality = rng.normal(size=systems) + rng.normal(size=(prompts, systems))
    return 1 / (1 + np.exp(-(ease + spread * quality)))


def digest(scores: Float[np.ndarray, "P C"]) -> str:
    """Of what a kept piece was measured on, so that other data makes another piece.

    Example:
        >>> digest(np.zeros((2, 3))) == digest(np.zeros((3, 2)))
        False
    """
    named = repr((scores.shape, str(scores.dtype))).encode()
    return hashlib.sha256(named + np.ascontiguousarray(scores).tobytes()).hexdigest()[:10]


def _of(won: Won) -> dict[str, float]:
    return recorded(estimate(won.per_prompt)) | {"kl": round(float(won.kl.mean()), 5)}


def _difference(ours: Won, theirs: Won) -> Mapping[str, float]:
    return recorded(paired_difference(ours.per_prompt, theirs.per_prompt))
