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
WITHOUT_TORCH = ("plan_best_of_n", "calibrate_your_rewards")


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


def test_calibrating_makes_prompts_alike_and_the_optimal_transform_wins_at_best_of_4():
    printed = printed_by("calibrate_your_rewards")
    spreads = [float(value) for value in re.findall(r"prompt to prompt (\S+)", printed)]
    assert spreads[0] > 1 > 0.01 > spreads[1]
    wins = {
        row[0]: float(row[1]) for row in re.findall(r"^ +(\w+) +best-of-4 +(\S+) ±", printed, re.M)
    }
    assert wins["optimal"] > wins["identity"] > wins["raw"]


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
