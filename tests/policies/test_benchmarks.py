"""The benchmarks of sampling, scoring and chains run, on a tiny model, and their tests can fail."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("psutil")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
LEVEL = 1e-3


@pytest.fixture
def load(monkeypatch):
    """Loads `benchmarks/<room>/<file>.py`; what it changes in the process is put back."""
    environment, threads = dict(os.environ), torch.get_num_threads()

    def load(room, file):
        monkeypatch.syspath_prepend(str(FOLDER / room))
        monkeypatch.syspath_prepend(str(FOLDER))
        name = f"benchmark_{room}_{file}"
        spec = importlib.util.spec_from_file_location(name, FOLDER / room / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    yield load
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)


def test_sampling_has_the_law_of_generate_and_another_temperature_has_not(load):
    """False-alarm rate 1e-3 a test; the seeds are fixed, so it passes or fails for good."""
    size = ["--prompts", "6", "--k", "24", "--tokens", "10", "--rows", "32"]
    result = load("sampling", "run").main(["--smoke", *size])
    law = result["dtypes"]["float32"]["law"]
    for way in ("ours", "without refill", "without sharing"):
        assert law[way]["length"] > LEVEL
        assert law[way]["log-probability"] > LEVEL
    assert law["warmer"]["log-probability"] < LEVEL
    assert set(result["dtypes"]["float32"]["speed"]) == set(law) - {"warmer"}


def test_the_two_sample_test_keeps_its_level_and_sees_a_shift(load):
    """Prompts as different as they like; P-values of 40 pairs drawn from one law are uniform."""
    laws, rng = load("sampling", "laws"), np.random.default_rng(0)
    places = rng.normal(0, 50, (8, 1))
    pairs = [places + rng.normal(size=(8, 20)) for _ in range(80)]
    found = [laws.permutation_p(pairs[i], pairs[i + 1], 199) for i in range(0, 80, 2)]
    assert 0.3 < np.mean(found) < 0.7
    assert np.mean(np.array(found) < 0.1) < 0.3
    assert laws.permutation_p(pairs[0], pairs[1] + 1, 199) == 1 / 200


def test_scoring_agrees_in_both_forms(load):
    result = load("scoring", "run").main(["--smoke", "--repeats-float32", "1"])
    for case in result["dtypes"]["float32"]:
        for name in ("forward", "forward and backward"):
            assert case[name]["relative difference"] < 1e-5
            assert case[name]["shared is times as fast"] > 0


def test_chains_walk_the_same_way_with_what_they_wrote_kept_and_without(load):
    size = ["--prompts", "2", "--steps", "4", "--tokens", "10", "--repeats", "1"]
    result = load("decoding", "speed").main(["--smoke", *size])
    for case in result["dtypes"]["float32"].values():
        assert case["same states"] == 1.0
        kept, anew = case["ways"]["kept"], case["ways"]["read anew"]
        assert kept["tokens per step"] == anew["tokens per step"] > 1
        assert kept["steps per second"] > 0
