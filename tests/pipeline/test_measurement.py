"""Measurements on disk, and policies at a common KL."""

import numpy as np
import pytest

from infalign.pipeline.measurement import Measurement, at_kl, reach

KEY = ("train", "judge", "best-of-4")


def point(step, kl, win):
    return Measurement(
        step, {"train": np.full(3, kl)}, {"train": np.full(3, kl)}, {KEY: np.full(3, win)}
    )


def test_a_measurement_comes_back_as_it_was(tmp_path):
    one = point(7, 0.3, 0.8)
    one.save(tmp_path / "m.npz")
    back = Measurement.load(tmp_path / "m.npz")
    assert back.step == 7
    assert back.wins.keys() == one.wins.keys()
    assert np.array_equal(back.wins[KEY], one.wins[KEY])


def test_between_checkpoints_the_win_rate_is_linear_in_the_root_of_kl():
    path = [point(1, 0.25, 0.7), point(2, 1.0, 0.9)]
    assert at_kl(path, *KEY, kl=0.0625).tolist() == pytest.approx([0.6] * 3)
    assert at_kl(path, *KEY, kl=0.5625).tolist() == pytest.approx([0.8] * 3)
    assert at_kl(path, *KEY, kl=1.0).tolist() == pytest.approx([0.9] * 3)


def test_a_path_is_not_extrapolated():
    path = [point(1, 0.25, 0.7)]
    assert reach(path, "train") == 0.25
    assert at_kl(path, *KEY, kl=0.3) is None


def test_a_path_that_turns_back_is_read_where_it_last_passes():
    path = [point(1, 0.81, 0.7), point(2, 0.64, 0.9), point(3, 0.25, 0.8)]
    assert at_kl(path, *KEY, kl=0.64).tolist() == pytest.approx([0.9] * 3)
    assert at_kl(path, *KEY, kl=0.81).tolist() == pytest.approx([0.7] * 3)
    assert at_kl(path, *KEY, kl=0.4225).tolist() == pytest.approx([0.85] * 3)


def test_checkpoints_a_judge_has_not_judged_are_passed_over():
    blind = Measurement(1, {"train": np.full(3, 0.1)}, {"train": np.full(3, 0.1)}, {})
    assert at_kl([blind, point(2, 1.0, 0.9)], *KEY, kl=0.25).tolist() == pytest.approx([0.7] * 3)
    assert at_kl([blind], *KEY, kl=0.05) is None
