"""From an experiment to a report, interrupted or not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from infalign import pipeline
from infalign.pipeline.stages import load_policy
from infalign.report import load_report

GO = """
import sys
from infalign.config import load_experiment
from infalign.pipeline import run
run(load_experiment(sys.argv[1]))
"""


def results(folder: Path) -> dict:
    """A report without what depends on the clock or on the folder's name."""
    report = json.loads((folder / "report.json").read_text())

    def strip(value):
        if isinstance(value, dict):
            return {
                k: strip(v) for k, v in value.items() if k not in ("cost", "created", "manifest")
            }
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(report)


@pytest.fixture(scope="module")
def start():
    """Starts the run of an experiment file in a process group of its own."""

    def begin(path: Path, folder: Path) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
        return subprocess.Popen(
            [sys.executable, "-c", GO, str(path)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    return begin


def test_a_run_ends_in_a_report_with_prediction_beside_measurement(experiment):
    page = pipeline.run(experiment())
    assert page.name == "report.html"
    assert page.stat().st_size > 10_000
    (act,) = load_report(page.with_name("report.json")).acts
    assert {row.transform for row in act.ideal} >= {"raw", "identity", "log", "optimal"}
    assert {frontier.split for frontier in act.frontiers} == {"train", "held-out"}
    for frontier in act.frontiers:
        assert frontier.limit is not None
        assert {measured.policy for measured in frontier.measured} == {"InfAlign", "raw reward"}
    judges = {comparison.judge for comparison in act.comparisons}
    assert judges == {"vowels", "length"}, "what trains and what judges stand side by side"
    assert act.manifest is not None
    assert "torch" in act.manifest.versions
    assert (page.parent / "manifest.json").exists()


def test_a_second_run_makes_nothing_twice(experiment):
    one = experiment()
    folder = pipeline.run(one).parent
    before = results(folder)
    made = {
        p: p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.suffix in (".parquet", ".pt", ".npz")
    }
    assert made
    pipeline.run(one)
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert results(folder) == before
    _trained_policies_say_what_they_were_aligned_to(one)


def _trained_policies_say_what_they_were_aligned_to(experiment):
    study = pipeline.make_study(experiment)
    assert study.policy.aligned is None
    for name, transform in (("raw", None), ("infalign", study.transform)):
        load_policy(study, name)
        aligned = study.policy.aligned
        assert (aligned.reward, aligned.transform) == ("vowels", transform)
        assert aligned.beta == study.problem(name).beta
        with study.policy.reference():
            assert study.policy.aligned is None


def test_a_killed_run_resumes_to_the_same_report(experiment_file, workshop, tmp_path, start):
    whole = experiment_file("whole.yaml", output=str(tmp_path / "whole"))
    process = start(whole, workshop)
    begin = time.monotonic()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    lasted = time.monotonic() - begin
    killed = experiment_file("killed.yaml", output=str(tmp_path / "killed"))
    moments = random.Random(0)
    for _ in range(3):
        process = start(killed, workshop)
        time.sleep(moments.uniform(0.3, 0.9) * lasted)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = start(killed, workshop)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_where_responses_can_be_listed_a_trained_policy_lands_on_the_prediction(experiment):
    settings = {
        "policy": {
            "kind": "choice_lm",
            "model": experiment().policy.model,
            "candidates": 16,
            "dtype": "float32",
            "lora": {"rank": 16},
        },
        "training": {
            "kind": "exact",
            "kl": 0.5,
            "steps": 150,
            "learning_rate": 1e-2,
            "schedule": "cosine",
            "checkpoint_every": 50,
        },
    }
    page = pipeline.run(experiment(**settings))
    (act,) = load_report(page.with_name("report.json")).acts
    ideal = {row.transform: row.decoded.value for row in act.ideal}
    train = next(f for f in act.frontiers if f.split == "train")
    for measured in train.measured:
        last = measured.checkpoints[-1]
        assert last.kl.value == pytest.approx(0.5, abs=0.03)
        assert last.win_rate.value == pytest.approx(ideal[measured.transform], abs=0.02)
    assert ideal["optimal"] > ideal["raw"], "and the prediction itself tells the two apart"


def test_random_numbers_of_one_stage_do_not_move_another(experiment):
    study = pipeline.make_study(experiment())
    first = study.rng("rollouts").random(3)
    study.rng("measure").random(100)
    assert np.array_equal(study.rng("rollouts").random(3), first)
    assert not np.array_equal(study.rng("judged").random(3), first)
