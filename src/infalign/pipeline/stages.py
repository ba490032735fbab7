"""The stages, one function each: what each needs is made first, what is there is not made again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from infalign.config.solvers import OnlineDecodedSolver
from infalign.decoding import Decoded, decode
from infalign.pipeline import build
from infalign.pipeline.checks import refuse_constant
from infalign.pipeline.decoded import calibration_for
from infalign.pipeline.measurement import Measurement
from infalign.pipeline.runs import run_folder, run_side_by_side
from infalign.pipeline.study import POLICIES, Study
from infalign.policies.alignment import Alignment
from infalign.quantile.transforms import Identity, Transform
from infalign.report import write_report
from infalign.rollouts.shards import write_atomically
from infalign.training.solver import Checkpoint, Problem, TrainingResult

__all__ = [
    "calibrate",
    "decode_policy",
    "evaluate",
    "evaluate_policy",
    "report",
    "reward",
    "rollout",
    "train",
    "train_policy",
]


def rollout(study: Study) -> None:
    """Prompts × reference → responses."""
    study.roll_out()


def reward(study: Study) -> None:
    """Responses → rewards, by every judge."""
    rollout(study)
    study.score()
    refuse_constant(study.reference_rewards(), study.reward.name)


def calibrate(study: Study) -> None:
    """Rewards → quantiles; shows what exact alignment of the reference would win."""
    reward(study)
    kl = study.experiment.training.kl or 1.0
    name = study.procedure.name
    if study.text_procedure is not None:
        study.show.say(f"{name} is not told by ranks: no ideal to show before training")
    rows = [
        [row.transform, f"{row.standard.value:.3f}", f"{row.decoded.value:.3f}"]
        for row in study.ideal(kl)
    ]
    if rows:
        title = f"The ideal at once: exact tilt of the reference at KL {kl:g}, nothing trained"
        study.show.table(title, ["transform", "standard", name], rows)
    elif study.text_procedure is None:
        study.show.say(f"too few rollouts to show the ideal at KL {kl:g}; raise rollouts.k")
    check = study.calibration_check()
    study.show.say(
        f"distance of rewards from uniform (KS, per prompt): {check.prompt_ks_before:.2f} on one "
        f"global scale, {check.prompt_ks_after:.2f} calibrated"
    )


def train(study: Study, policies: Sequence[str] | None = None) -> None:
    """Quantiles → aligned policies, side by side."""
    reward(study)
    _run(study, policies, ["train"])


def evaluate(study: Study, policies: Sequence[str] | None = None) -> None:
    """Policies → win rates and KL, side by side; trains what is not trained yet."""
    reward(study)
    _run(study, policies, ["train", "evaluate"])


def _run(study: Study, policies: Sequence[str] | None, stages: Sequence[str]) -> None:
    chosen = list(policies or study.policies)
    unknown = [name for name in chosen if name not in study.policies]
    if unknown:
        raise ValueError(
            f"no policy is named {unknown[0]!r}; this experiment trains {list(study.policies)}."
        )
    open_ones = [name for name in chosen if not _is_done(study, name, stages[-1])]
    if not open_ones:
        return
    with study.timed(" and ".join(stages), f"{len(open_ones)} policies side by side"):
        training = study.experiment.training
        run_side_by_side(study.folder, open_ones, stages, study.show, training)


def _is_done(study: Study, name: str, stage: str) -> bool:
    found = read_checkpoints(study, name)
    if not found or stage == "train":
        return bool(found)
    return all(_measured_at(study, name, point.step).exists() for point in _chosen(study, found))


def train_policy(study: Study, name: str) -> None:
    """Train one policy, in this process; steps that were taken already are only read."""
    problem = study.problem(name)
    points, done = [Checkpoint(0, Path())], 0
    for label, result in _solved(study, name, problem):
        points += [Checkpoint(done + p.step, p.path) for p in result.checkpoints if p.step]
        _keep_rows(study, name, label, result.rows, done)
        done += result.steps
    study.policy.save_adapter(run_folder(study.folder, name) / "adapter")
    listed = [[point.step, str(point.path.relative_to(study.folder))] for point in points[1:]]
    path = run_folder(study.folder, name) / "checkpoints.json"
    write_atomically(
        path, json.dumps({"beta": problem.beta, "points": listed}).encode(), path.parent
    )


def step_policy(study: Study, name: str) -> None:
    """Take a policy's steps only, as one of several processes that share them out."""
    for _ in _solved(study, name, study.problem(name)):
        pass


def _solved(study: Study, name: str, problem: Problem) -> Iterator[tuple[str, TrainingResult]]:
    """The policy moved by each of its solvers: the solver's folder, and what it did."""
    training = study.experiment.training
    total, done = training.steps + getattr(training, "refine_steps", 0), 0
    with study.show.progress(f"train {POLICIES[name]}") as progress:
        for label, solver in build.solvers_of(study.experiment, name):

            def follow(row: Mapping[str, float], done: int = done) -> None:
                progress(done + int(row["step"]), total)

            home, rng = run_folder(study.folder, name) / label, study.rng("train", name)
            result = solver.train(study.policy, problem, directory=home, callback=follow, rng=rng)
            yield label, result
            done += result.steps
        progress(total, total)


def _keep_rows(
    study: Study, name: str, label: str, rows: Sequence[Mapping[str, float]], done: int
) -> None:
    shifted = [{**row, "step": row["step"] + done} for row in rows]
    path = run_folder(study.folder, name) / f"{label}.json"
    write_atomically(path, json.dumps(shifted).encode(), path.parent)


def read_rows(study: Study, name: str) -> list[dict[str, float]]:
    """The training log of a policy, over all its solvers."""
    home = run_folder(study.folder, name)
    rows: list[dict[str, float]] = []
    for label, _ in build.solvers_of(study.experiment, name):
        rows += json.loads((home / f"{label}.json").read_text())
    return rows


def read_checkpoints(study: Study, name: str) -> list[Checkpoint]:
    """A trained policy's checkpoints; none while it is not trained to the end."""
    path = run_folder(study.folder, name) / "checkpoints.json"
    if not path.exists():
        return []
    points = json.loads(path.read_text())["points"]
    return [Checkpoint(step, study.folder / where) for step, where in points]


def _chosen(study: Study, points: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those that are measured: evenly many, the last among them."""
    wanted = min(study.experiment.evaluate.checkpoints, len(points))
    places = np.linspace(len(points), 0, wanted, endpoint=False)[::-1].round().astype(int) - 1
    return [points[place] for place in sorted({int(p) for p in places})]


def load_policy(study: Study, name: str, step: int | None = None) -> int:
    """Put a trained policy's weights into `study.policy`; returns their step."""
    from infalign.training.checkpoints import load_weights

    points = read_checkpoints(study, name)
    if not points:
        raise ValueError(f"{name!r} is not trained yet; run `infalign train` first.")
    point = points[-1] if step is None else next(p for p in points if p.step == step)
    load_weights(study.policy.module, point.path)
    study.policy.aligned = _alignment(study, name)
    return point.step


def _alignment(study: Study, name: str) -> Alignment | None:
    """The tilt that a policy was trained towards; None where the training knows no tilt."""
    if isinstance(study.experiment.training, OnlineDecodedSolver):
        return None
    beta = json.loads((run_folder(study.folder, name) / "checkpoints.json").read_text())["beta"]
    known: dict[str, Transform | None] = {"raw": None, "calibrated": Identity()}
    return Alignment(study.reward.name, beta, known.get(name, study.transform))


def evaluate_policy(study: Study, name: str) -> None:
    """Measure the checkpoints of one policy, in this process."""
    chosen = _chosen(study, read_checkpoints(study, name))
    with study.show.progress(f"measure {POLICIES[name]}") as progress:
        for done, point in enumerate(chosen):
            progress(done, len(chosen))
            path = _measured_at(study, name, point.step)
            if not path.exists():
                load_policy(study, name, point.step)
                study.measure(name, point.step, last=point is chosen[-1]).save(path)
        progress(len(chosen), len(chosen))


def _measured_at(study: Study, name: str, step: int) -> Path:
    return study.folder / "evaluate" / f"{name}-{step:06d}.npz"


def read_measurements(study: Study, name: str) -> list[Measurement]:
    """Everything measured of a policy, in order of step."""
    chosen = _chosen(study, read_checkpoints(study, name))
    return [Measurement.load(_measured_at(study, name, point.step)) for point in chosen]


def decode_policy(study: Study, policy: str = "infalign") -> list[Decoded]:
    """The procedure's answers to the held-out prompts, by `reference` or a trained policy."""
    rng = study.rng("decode", policy)
    with study.timed("decode"):
        if policy == "reference":
            with study.policy.reference():
                return _decoded(study, rng)
        if policy not in study.policies:
            raise ValueError(
                f"no policy is named {policy!r}; there are {['reference', *study.policies]}."
            )
        train(study, [policy])
        load_policy(study, policy)
        return _decoded(study, rng)


def _decoded(study: Study, rng: np.random.Generator) -> list[Decoded]:
    prompts = study.prompts["held-out"]
    if study.text_procedure is not None and study.text_procedure.needs_calibration:
        reward(study)
    calibration = calibration_for(study, prompts)
    return decode(
        study.policy, prompts, study.reward, study.procedure, calibration=calibration, rng=rng
    )


def report(study: Study) -> Path:
    """Everything so far → report.html and report.json; makes what is missing first."""
    from infalign.pipeline.reporting import report_of

    evaluate(study)
    return write_report(report_of(study), study.folder)
