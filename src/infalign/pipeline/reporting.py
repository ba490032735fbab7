"""What a study found, as the records of the report: prediction beside measurement."""

import dataclasses
import datetime
import json
import math
from collections.abc import Sequence

import numpy as np

from infalign.config import dump_experiment
from infalign.evaluation import estimate, paired_difference
from infalign.pipeline.measurement import SPLITS, Measurement, Split, reach
from infalign.pipeline.stages import read_measurements, read_rows
from infalign.pipeline.study import POLICIES, TREATMENT, Study, recorded, versions
from infalign.planner.page import startable
from infalign.quantile.procedures import BestOfN
from infalign.quantile.win_rate import frontier
from infalign.report import (
    Act,
    Checkpoint,
    Comparison,
    Curve,
    Decomposition,
    DecompositionRow,
    Difference,
    Estimate,
    Frontier,
    Manifest,
    Measured,
    PolicyValue,
    Report,
    TrainingCurve,
    WinRateByN,
)

__all__ = ["act_of", "comparisons_of", "report_of"]

COMMON_KLS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""KLs at which policies are compared, where all of them get there."""
NO_THEORY = (
    "No theory predicts what this procedure can win, so there is no limit and no curve here: "
    "InfAlign was trained on the win rate of decoded answers itself."
)
Paths = dict[str, list[Measurement]]


def report_of(study: Study) -> Report:
    """The whole report of one experiment."""
    title = study.experiment.report.title or study.experiment.name
    return Report(title, (act_of(study, title),), created=today(), manifest=manifest_of(study))


def today() -> str:
    """ISO date for the footer; the only thing in a report that depends on the clock."""
    return datetime.date.today().isoformat()


def act_of(study: Study, title: str, summary: str = "") -> Act:
    """One experiment as an act of a report."""
    paths = {name: read_measurements(study, name) for name in study.policies}
    training = study.experiment.training
    target = training.kl or max(reach(path, "train") for path in paths.values())
    frontiers = _frontiers(study, paths)
    return Act(
        title=title,
        summary=summary,
        facts=study.facts(),
        procedure=study.procedure.name,
        reward=study.reward.name,
        treatment=TREATMENT,
        baseline=POLICIES["raw"] if "raw" in paths else "",
        target_kl=target,
        frontiers=frontiers,
        equal_kl_note=study.equal_kl_note,
        comparisons=comparisons_of(study, paths),
        ideal=study.ideal(target),
        decompositions=tuple(_decomposition(study, name, paths[name]) for name in paths),
        calibration=study.calibration_check(),
        training=tuple(_training_curve(study, name) for name in paths),
        win_rate_by_n=_win_rates_by_n(study, paths),
        answers=study.answers(
            [name for name in ("raw", "infalign") if name in paths],
            {name: path[-1].step for name, path in paths.items()},
        ),
        cost=study.cost_rows(),
        manifest=manifest_of(study),
        plan=_plan(study, target),
    )


def _plan(study: Study, kl: float) -> dict[str, str | float]:
    """Where the report's planner starts: at the experiment, as far as the planner can show it."""
    experiment = study.experiment
    procedure, transform = experiment.procedure, experiment.transform
    if procedure.kind == "order_statistic" or study.text_procedure is not None:
        return {}
    plan: dict[str, str | float] = {"procedure": procedure.kind, "kl": float(f"{kl:.3g}")}
    plan |= {"n": procedure.candidates, "k": experiment.rollouts.k, "transform": transform.kind}
    if transform.kind == "exponential":
        plan["t"] = transform.t
    return startable(plan)


def manifest_of(study: Study) -> Manifest:
    """What one needs to run it again; also written as manifest.json."""
    return Manifest(
        experiment=dump_experiment(study.experiment),
        versions=versions(),
        device=device_of(study),
        seed=study.experiment.seed,
        other={"policy fingerprint": study.reference_fingerprint()},
    )


def device_of(study: Study) -> str:
    """For example `cpu, 2 cores, bfloat16`."""
    import os

    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = str(next(iter(study.policy.module.parameters())).dtype).removeprefix("torch.")
    return f"{kind}, {os.cpu_count()} cores, {dtype}"


# --- the main figure ---


def _frontiers(study: Study, paths: Paths) -> tuple[Frontier, ...]:
    farthest = max(reach(path, split) for path in paths.values() for split in SPLITS)
    kls = np.linspace(0, max(1.1 * farthest, 0.2), 23)[1:]
    kls = [0.0, *np.concatenate([kls[0] * np.array([0.04, 0.2, 0.5]), kls]).tolist()]
    limit, predictions = None, ()
    if study.theory is not None:
        limit = Curve("limit", tuple(kls), tuple(frontier(study.theory, kls)))
        predictions = study.predictions(kls)
    note = NO_THEORY if study.theory is None else study.curve_note
    found = []
    for split in SPLITS:
        measured = tuple(_measured(study, name, path, split) for name, path in paths.items())
        found.append(Frontier(split, limit, predictions, measured, study.reward.name, note))
    return tuple(found)


def _measured(study: Study, name: str, path: Sequence[Measurement], split: Split) -> Measured:
    points = [
        Checkpoint(
            _estimate(m.kl[split]),
            _estimate(m.wins[split, study.reward.name, study.procedure_label]),
            m.step,
        )
        for m in path
    ]
    return Measured(POLICIES[name], study.transform_name(name), tuple(points))


def _estimate(per_prompt: np.ndarray) -> Estimate:
    return recorded(estimate(per_prompt))


# --- policies at equal KL ---


def comparisons_of(study: Study, paths: Paths) -> tuple[Comparison, ...]:
    """Policies at common KLs, by every judge, decoded and not, on both sides of the split."""
    found = []
    for split in SPLITS:
        shared = min(study.reach(path, split) for path in paths.values())
        kls = [kl for kl in COMMON_KLS if kl <= shared] or [math.floor(1000 * shared) / 1000]
        kls = [kl for kl in kls if kl > 0]
        for kl in kls:
            for judge in study.judges:
                for label in dict.fromkeys((study.procedure_label, "standard")):
                    found.append(_comparison(study, paths, (split, judge, label), kl))
    return tuple(comparison for comparison in found if comparison is not None)


def _comparison(
    study: Study, paths: Paths, key: tuple[Split, str, str], kl: float
) -> Comparison | None:
    wins = {name: study.win_rate_at(name, path, key, kl) for name, path in paths.items()}
    reached = {name: values for name, values in wins.items() if values is not None}
    if "infalign" not in reached:
        return None
    values = tuple(PolicyValue(POLICIES[n], _estimate(v)) for n, v in reached.items())
    differences = []
    for name, baseline in reached.items():
        if name != "infalign":
            gain = paired_difference(reached["infalign"], baseline)
            differences.append(
                Difference(TREATMENT, POLICIES[name], Estimate(gain.value, gain.se, gain.n))
            )
    return Comparison(kl, *key, values, tuple(differences))


# --- the distance between ideal and trained ---


def _decomposition(study: Study, name: str, path: Sequence[Measurement]) -> Decomposition:
    """All rows at one KL: the largest that the policy reaches on both sides of the split."""
    kl = min(study.reach(path, split) for split in SPLITS)
    rows = list(study.ceilings(name, kl))
    notes = {
        "train": "what is lost against the row above: optimisation short of the optimum",
        "held-out": "what is lost against the row above: generalisation to new prompts",
    }
    labels = {"train": "trained, training prompts", "held-out": "trained, held-out prompts"}
    for split in SPLITS:
        wins = study.win_rate_at(name, path, (split, study.reward.name, study.procedure_label), kl)
        if wins is not None:
            found = estimate(wins)
            rows.append(DecompositionRow(labels[split], found.value, found.se, notes[split]))
    return Decomposition(POLICIES[name], kl, tuple(rows))


# --- the rest ---


def _training_curve(study: Study, name: str) -> TrainingCurve:
    """Series that were logged at the same steps; a solver that samples rarely logs rarely."""
    rows = [row for row in read_rows(study, name) if "kl" in row]
    columns = {}
    for field, key in (("reward", "reward"), ("quantile", "quantile"), ("kl", "kl")):
        series = tuple(row[key] for row in rows if key in row)
        columns[field] = series if len(series) == len(rows) else ()
    return TrainingCurve(POLICIES[name], tuple(row["step"] for row in rows), **columns)


def _win_rates_by_n(study: Study, paths: Paths) -> tuple[WinRateByN, ...]:
    found = []
    ns = study.experiment.evaluate.ns
    for split in SPLITS:
        for name, path in paths.items():
            last = path[-1]
            wins = [last.wins[split, study.reward.name, _label(n)] for n in ns]
            kl = float(last.kl[split].mean())
            estimates = tuple(_estimate(values) for values in wins)
            found.append(
                WinRateByN(POLICIES[name], split, tuple(ns), estimates, study.reward.name, kl)
            )
    return tuple(found)


def _label(n: int) -> str:
    return "standard" if n == 1 else BestOfN(n).name


def write_manifest(study: Study) -> None:
    """manifest.json: the experiment, package versions, device, seed."""
    from infalign.rollouts.shards import write_atomically

    text = json.dumps(dataclasses.asdict(manifest_of(study)), indent=1)
    write_atomically(study.folder / "manifest.json", text.encode(), study.folder)
