"""An interrupted run ends bit for bit where an uninterrupted one does."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infalign.policies.softmax_table import SoftmaxTable
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Exponential
from infalign.training import (
    CalibratedReward,
    Descent,
    Exact,
    Fit,
    Online,
    Problem,
    Regression,
    load_weights,
)

sys.path.insert(0, str(Path(__file__).parent))
from tables import lines, rollouts_of, table

torch.set_num_threads(1)
P, C, K = 3, 5, 12
DESCENT = Descent(steps=11, learning_rate=0.05, prompts_per_step=2, checkpoint_every=3)
SOLVERS = {
    "exact": Exact(DESCENT),
    "online": Online(DESCENT, k=4),
    "fit": Fit(DESCENT, k=4),
    "regression": Regression(DESCENT),
}


def counts():
    rng = np.random.default_rng(0)
    return np.array([np.bincount(rng.integers(C, size=K - C), minlength=C) + 1 for _ in range(P)])


class Score:
    """The response's number, a different order for every prompt."""

    name = "score"

    def __call__(self, prompts, responses):
        return np.array(
            [
                [(int(text[1:]) * 7 + int(prompt[1:]) * 3) % C * 1.0 for text in texts]
                for prompt, texts in zip(prompts, responses, strict=True)
            ]
        )


def problem(beta=0.3):
    rollouts = rollouts_of(counts())
    texts = [[response.text for response in row] for row in rollouts]
    rewards = Score()([line.text for line in lines(P)], texts)
    calibration = EmpiricalCalibration(tuple(line.id for line in lines(P)), rewards)
    calibrated = CalibratedReward(Score(), calibration, Exponential(5.0))
    return Problem(lines(P), calibrated, beta, rollouts)


class Interrupted(Exception):
    pass


def stop_after(step):
    def callback(row):
        if row["step"] == step:
            raise Interrupted

    return callback


def timeless(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("step", [1, 7])
def test_resumed_run_equals_an_uninterrupted_one(name, step, tmp_path):
    solver, whole, broken = SOLVERS[name], table(counts() / K), table(counts() / K)
    expected = solver.train(
        whole, problem(), directory=tmp_path / "whole", rng=np.random.default_rng(1)
    )
    with pytest.raises(Interrupted):
        solver.train(
            broken,
            problem(),
            directory=tmp_path / "broken",
            callback=stop_after(step),
            rng=np.random.default_rng(1),
        )
    broken = table(counts() / K)
    result = solver.train(
        broken, problem(), directory=tmp_path / "broken", rng=np.random.default_rng(1)
    )
    assert torch.equal(whole.logits, broken.logits)
    assert timeless(result.rows) == timeless(expected.rows)
    assert [kept.step for kept in result.checkpoints] == [3, 6, 9, 11]
    logged = (tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    assert timeless(map(json.loads, logged)) == timeless(expected.rows)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_finished_run_is_not_run_again(name, tmp_path):
    results = [
        SOLVERS[name].train(
            table(counts() / K), problem(), directory=tmp_path, rng=np.random.default_rng(1)
        )
        for _ in range(2)
    ]
    assert timeless(results[0].rows) == timeless(results[1].rows)


@pytest.mark.parametrize("solver", [Exact, Regression])
def test_a_run_stopped_at_its_target_stays_there(solver, tmp_path):
    descent = Descent(60, 0.05, target_kl=0.1, measure_every=2, measure_k=64)
    policies = [table(counts() / K) for _ in range(2)]
    results = [
        solver(descent).train(policy, problem(), directory=tmp_path, rng=np.random.default_rng(1))
        for policy in policies
    ]
    assert [result.stopped for result in results] == ["target_kl"] * 2
    assert timeless(results[0].rows) == timeless(results[1].rows)
    assert torch.equal(policies[0].logits, policies[1].logits)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_directory_without_a_run_and_none_at_all_agree(name, tmp_path):
    first, second = table(counts() / K), table(counts() / K)
    SOLVERS[name].train(first, problem(), directory=tmp_path, rng=np.random.default_rng(1))
    result = SOLVERS[name].train(second, problem(), rng=np.random.default_rng(1))
    assert torch.equal(first.logits, second.logits)
    assert result.checkpoints == ()


@pytest.mark.parametrize("name", SOLVERS)
def test_the_directory_of_another_run_is_refused(name, tmp_path):
    SOLVERS[name].train(
        table(counts() / K), problem(), directory=tmp_path, rng=np.random.default_rng(1)
    )
    with pytest.raises(ValueError, match="holds a run with another beta"):
        SOLVERS[name].train(
            table(counts() / K), problem(0.4), directory=tmp_path, rng=np.random.default_rng(1)
        )
    steeper = dataclasses.replace(problem().rewards, transform=Exponential(9.0))
    with pytest.raises(ValueError, match="holds a run with another training reward"):
        SOLVERS[name].train(
            table(counts() / K),
            dataclasses.replace(problem(), rewards=steeper),
            directory=tmp_path,
            rng=np.random.default_rng(1),
        )
    with pytest.raises(ValueError, match="holds a run with another seed"):
        SOLVERS[name].train(
            table(counts() / K), problem(), directory=tmp_path, rng=np.random.default_rng(2)
        )


def test_a_run_can_be_continued_for_longer(tmp_path):
    whole, longer = table(counts() / K), table(counts() / K)
    Exact(DESCENT).train(whole, problem(), rng=np.random.default_rng(1))
    for steps in (5, 11):
        descent = Descent(steps, 0.05, prompts_per_step=2)
        Exact(descent).train(longer, problem(), directory=tmp_path, rng=np.random.default_rng(1))
    assert torch.equal(whole.logits, longer.logits)


def test_checkpoints_along_the_way_can_be_loaded(tmp_path):
    policy = table(counts() / K)
    result = Online(DESCENT, k=4).train(
        policy, problem(), directory=tmp_path, rng=np.random.default_rng(1)
    )
    last = table(counts() / K)
    load_weights(last, result.checkpoints[-1].path)
    assert torch.equal(last.logits, policy.logits)
    load_weights(last, result.checkpoints[0].path)
    assert not torch.equal(last.logits, policy.logits)
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(torch.nn.Linear(2, 2), result.checkpoints[0].path)


def test_ctrl_c_keeps_every_finished_step(tmp_path):
    class Impatient(SoftmaxTable):
        asked = 0

        def sample(self, prompts, k, rng):
            self.asked += 1
            if self.asked == 3:
                raise KeyboardInterrupt
            return super().sample(prompts, k, rng)

    with pytest.raises(KeyboardInterrupt):
        Online(DESCENT, k=4).train(
            table(counts() / K, Impatient),
            problem(),
            directory=tmp_path,
            rng=np.random.default_rng(1),
        )
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2


KILLED = """
import sys, time
sys.path.insert(0, {here!r})
import numpy as np
import test_resume as t

class Slow(t.SoftmaxTable):
    def sample(self, *given):
        time.sleep(0.05)
        return super().sample(*given)

t.Online(t.DESCENT, k=4).train(
    t.table(t.counts() / t.K, Slow), t.problem(), directory=t.Path({directory!r}),
    callback=lambda row: print(row["step"], flush=True), rng=np.random.default_rng(1),
)
"""


def test_a_killed_process_loses_only_the_steps_since_its_checkpoint(tmp_path):
    code = KILLED.format(here=str(Path(__file__).parent), directory=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "7":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=60)
    resumed, whole, seen = table(counts() / K), table(counts() / K), []
    online = SOLVERS["online"]
    online.train(
        resumed,
        problem(),
        directory=tmp_path,
        callback=lambda row: seen.append(row["step"]),
        rng=np.random.default_rng(1),
    )
    assert seen[0] == 6
    online.train(whole, problem(), rng=np.random.default_rng(1))
    assert torch.equal(whole.logits, resumed.logits)
    assert not list(tmp_path.glob("*.partial"))
