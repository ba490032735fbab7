"""Examples run, say what they promise, stay short, and need torch only where they say so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infalign.config import load_experiment
from infalign.pipeline.build import prompts_of, reward_of

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
PLANS = tuple(script.stem for script in SCRIPTS if script.stem.startswith("plan_"))
WITHOUT_TORCH = (*PLANS, "own_procedure", "calibrate_your_rewards", "mod")


def printed_by(name: str, *options: str) -> str:
    """Standard output of an example, run as a user runs it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *options]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_examples_are_under_sixty_lines(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60


def test_planning_prints_the_limit_of_best_of_4_last():
    printed = printed_by("plan_best_of_n")
    optimal = re.search(r"^optimal .*$", printed, re.M)
    assert optimal is not None
    assert optimal[0].split()[-2:] == ["0.941", "100.0%"]
    # Decoded by the N it was trained for, and by no other, it reaches the limit.
    rows = re.findall(r"M = +(\d+) +(\S+) +(\S+)", printed)
    assert [m for m, won, limit in rows if won == limit] == ["4"]


def test_the_target_is_reached_with_less_kl_by_more_candidates():
    printed = printed_by("plan_target", "--win-rate", "0.9", "--kl-price", "8")
    ways = re.findall(r"^best-of-(\d+) +(\S+)", printed, re.M)
    kls = [float(kl) for _, kl in ways]
    assert kls == sorted(kls, reverse=True)
    assert abs(kls[0] - 1.3026) < 1e-4  # one answer, nine wins of ten
    assert re.findall(r"^best-of-(\d+) .*cheapest", printed, re.M) == ["4"]


def test_the_robust_policy_loses_least_at_worst():
    printed = printed_by("plan_mismatch", "--ns", "1", "4")
    lost = {
        row.split()[0]: float(row.split()[-1])
        for row in re.findall(r"^(?:best-of-\d|robust) .*$", printed, re.M)
    }
    assert lost["robust"] < min(lost["best-of-1"], lost["best-of-4"])
    integrated = re.search(r"anew: (.*)$", printed, re.M)
    assert integrated is not None
    robust = re.search(r"^robust +(\S+) +(\S+)", printed, re.M)
    assert robust is not None
    assert integrated[1].split(", ") == list(robust.groups())


def test_more_rollouts_lose_less():
    printed = printed_by("plan_rollouts", "--loss", "0.01")
    lost = {int(k): float(x) for k, x in re.findall(r"^ +(\d+) +\S+ +(\S+) ", printed, re.M)}
    assert list(lost.values()) == sorted(lost.values(), reverse=True)
    enough = re.search(r"K = (\d+) loses", printed)
    assert enough is not None
    assert 64 < int(enough[1]) < 128
    assert lost[64] > 0.01 > lost[128]


def test_the_predicted_standard_error_is_the_simulated_one():
    """The simulated one has a standard error of 1.1 %: 5 % is far outside."""
    printed = printed_by("plan_power")
    predicted, simulated = (float(x) for x in re.findall(r"(0\.\d{4}) (?:predicted|over)", printed))
    assert abs(simulated / predicted - 1) < 0.05


def test_solving_for_the_judge_wins_more_by_the_judge():
    """ρ of the simulated scores is (6/π)·asin(0.3) = 0.582."""
    printed = printed_by("plan_judge")
    rho, error = (float(x) for x in re.findall(r"ρ = (\S+) ± (\S+)", printed)[0])
    assert abs(rho - 0.5819) < 4 * error
    gold = dict(re.findall(r"^(\w[\w() -]*?) +0\.\d+ +(0\.\d+)$", printed, re.M))
    assert max(gold, key=lambda name: float(gold[name])) == "optimal for gold"


def test_an_own_procedure_is_checked_and_has_an_optimum():
    printed = printed_by("own_procedure")
    assert "the same story" in printed
    rates = {name: float(x) for name, x in re.findall(r"^(\S+) +beta.*rate (\S+)", printed, re.M)}
    assert max(rates, key=rates.__getitem__) == "optimal"


def test_the_policy_for_the_vote_wins_the_vote_and_the_other_the_single_answer():
    printed = printed_by("plan_majority_vote")
    (alone, vote) = (
        [float(x) for x in row] for row in re.findall(r"for majority\S+ +(\S+) +(\S+)", printed)
    )
    assert alone[0] > vote[0]
    assert vote[1] > alone[1]


def test_calibrating_makes_prompts_alike_and_the_optimal_transform_wins_at_best_of_4():
    printed = printed_by("calibrate_your_rewards")
    spreads = [float(value) for value in re.findall(r"prompt to prompt (\S+)", printed)]
    assert spreads[0] > 1 > 0.01 > spreads[1]
    wins = {
        row[0]: float(row[1]) for row in re.findall(r"^ +(\w+) +best-of-4 +(\S+) ±", printed, re.M)
    }
    assert wins["optimal"] > wins["identity"] > wins["raw"]


def test_weights_mean_something_on_calibrated_rewards_only():
    printed = printed_by("mod")
    rows = [
        [float(x) for x in row] for row in re.findall(r"^ +\S+ +\S+ +(\S+) +(\S+)$", printed, re.M)
    ]
    raw, calibrated = np.array(rows[:5]), np.array(rows[5:])
    assert np.abs(raw[:4] - raw[0]).max() < 0.01  # three quarters for the second: nothing happens
    assert (np.diff(calibrated[:, 0]) < -0.05).all()
    assert (np.diff(calibrated[:, 1]) > 0.05).all()
    assert abs(calibrated[2, 0] - calibrated[2, 1]) < 0.02
    drawn = [float(x) for x in re.findall(r"^drawn.*: (\S+) (\S+)$", printed, re.M)[0]]
    assert np.abs(np.array(drawn) - calibrated[2]).max() < 0.03


def test_the_tabular_policy_lands_on_its_prediction():
    printed = printed_by("tabular_alignment")
    distance = re.search(r"predicted: (\S+)", printed)
    assert distance is not None
    assert float(distance[1]) < 1e-3
    assert re.findall(r"KL (\S+) ", printed)[1:] == ["0.5000", "0.5000"]


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_arithmetic_needs_no_torch(name):
    code = f"import sys, runpy; runpy.run_path({str(EXAMPLES / f'{name}.py')!r})"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_experiment_with_an_own_reward_is_ready_to_run(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [*sys.path])
    experiment = load_experiment("own_reward.yaml")
    train, held_out = prompts_of(experiment.prompts)
    assert (len(train), len(held_out)) == (16, 8)
    reward = reward_of(experiment.reward)
    rewards = np.asarray(reward(["Hi"], [["Hello there.", "Felicitations, acquaintances!", ""]]))
    assert rewards.tolist() == [[0.0, -1.0, -2.0]]


def test_training_for_a_vote_ends_near_the_best_policy():
    pytest.importorskip("torch")
    rows = re.findall(
        r"^(\w+) +([\d.]+) +([\d.]+) +([\d.]+)$", printed_by("train_for_a_vote"), re.M
    )
    found = {name: float(voted) - 0.1 * float(kl) for name, _, voted, kl in rows}
    assert found["best"] > found["reference"] + 0.5
    assert found["best"] - found["trained"] < 0.01
