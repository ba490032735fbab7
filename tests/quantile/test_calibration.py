"""Laws of every calibration."""

import numpy as np
import pytest
from scipy import stats

from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Exponential
from members import CALIBRATIONS

IDS = tuple(f"prompt {i}" for i in range(6))


@pytest.fixture(params=sorted(CALIBRATIONS))
def make(request):
    return CALIBRATIONS[request.param]


@pytest.fixture
def rewards():
    return np.random.default_rng(0).normal(size=(6, 40))


def test_increases_with_the_reward(make, rewards):
    grid = np.tile(np.linspace(-4, 4, 101), (6, 1))
    u = make(IDS, rewards)(IDS, grid)
    assert (np.diff(u, axis=1) >= 0).all()
    assert u.min() == 0
    assert u.max() == 1


@pytest.mark.parametrize("warp", [np.exp, np.cbrt, lambda r: 3 * r - 7])
def test_an_increasing_warp_of_the_reward_changes_nothing(make, rewards, warp):
    new = np.random.default_rng(1).normal(size=(6, 25))
    plain, warped = make(IDS, rewards), make(IDS, warp(rewards))
    assert (plain(IDS, new) == warped(IDS, warp(new))).all()


def test_a_decreasing_warp_changes_everything(make, rewards):
    """Negative control of the law above."""
    new = np.random.default_rng(1).normal(size=(6, 25))
    assert not (make(IDS, rewards)(IDS, new) == make(IDS, -rewards)(IDS, -new)).all()


def test_ties_count_half(make):
    calibration = make(("a",), np.array([[1.0, 1.0, 1.0, 2.0]]))
    assert calibration(("a",), np.array([[0.0, 1.0, 1.5, 2.0]])).tolist() == [
        [0.0, 0.375, 0.75, 0.875]
    ]


def test_prompts_are_found_by_id_in_any_order(make, rewards):
    calibration = make(IDS, rewards)
    assert (calibration(IDS[::-1], rewards[::-1]) == calibration(IDS, rewards)[::-1]).all()
    assert calibration(["prompt 2"] * 3, rewards[[2, 2, 2]]).shape == (3, 40)


def test_quantiles_of_fresh_reference_rewards_are_uniform():
    """The rank among K is uniform on 0..K: χ² at 1e-4 on independent prompts, seed fixed."""
    rng, k = np.random.default_rng(2), 9
    ids = tuple(map(str, range(4000)))
    scale = rng.lognormal(size=(4000, 1))
    calibration = EmpiricalCalibration(ids, scale * rng.gumbel(size=(4000, k)))
    below, _ = calibration.ranks(ids, scale * rng.gumbel(size=(4000, 1)))
    assert stats.chisquare(np.bincount(below[:, 0], minlength=k + 1)).pvalue > 1e-4
    shifted, _ = calibration.ranks(ids, scale * (0.2 + rng.gumbel(size=(4000, 1))))
    assert stats.chisquare(np.bincount(shifted[:, 0], minlength=k + 1)).pvalue < 1e-4


def test_leave_one_out_is_the_calibration_by_the_others(rewards):
    rewards = np.round(rewards, 1)  # with ties
    left_out = EmpiricalCalibration(IDS, rewards).leave_one_out()
    for j in range(40):
        others = EmpiricalCalibration(IDS, np.delete(rewards, j, axis=1))
        assert np.allclose(left_out[:, j], others(IDS, rewards[:, j : j + 1])[:, 0], atol=1e-15)


def test_leave_one_out_quantiles_are_uniform_and_counting_oneself_is_not(rewards):
    calibration, k = EmpiricalCalibration(IDS, rewards), rewards.shape[1]
    uniform = np.tile(np.linspace(0, 1, k), (6, 1))
    assert np.allclose(np.sort(calibration.leave_one_out(), axis=1), uniform, atol=1e-15)
    with_itself = np.sort(calibration(IDS, rewards), axis=1)
    assert np.allclose(with_itself - uniform, (0.5 - uniform) / k, atol=1e-15)


def test_exact_finite_partition_normalises_leave_one_out_rewards(rewards):
    """The mean of exp(Φ̄/β) is the finite Z; the plug-in Φ(u) misses the continuous Z."""
    calibration, transform, beta = EmpiricalCalibration(IDS, rewards), Exponential(10.0), 0.1
    k = calibration.k - 1
    trained = transform.posterior_mean(*calibration.leave_one_out_ranks(), k)
    z = np.exp(trained / beta).mean(axis=1)
    assert np.allclose(z, np.exp(transform.finite_log_partition(beta, k)), rtol=1e-13)
    plug_in = np.exp(transform(calibration.leave_one_out()) / beta).mean(axis=1)
    assert not np.allclose(plug_in, np.exp(transform.log_partition(beta)), rtol=0.05)


@pytest.mark.parametrize(
    ("ids", "rewards", "said"),
    [
        (("a",), np.array([[1.0]]), "at least 2"),
        (("a", "a"), np.zeros((2, 3)), "repeated"),
        (("a",), np.array([[1.0, np.nan]]), "prompt 'a' is nan"),
        (("a",), np.array([[1.0, np.inf]]), "prompt 'a' is inf"),
        (("a", "b"), np.zeros((1, 3)), "one row"),
    ],
)
def test_bad_reference_rewards_are_refused(ids, rewards, said):
    with pytest.raises(ValueError, match=said):
        EmpiricalCalibration(ids, rewards)


def test_unseen_prompts_and_nan_are_refused_by_name(rewards):
    calibration = EmpiricalCalibration(IDS, rewards)
    with pytest.raises(ValueError, match="'nowhere'"):
        calibration(["prompt 1", "nowhere"], np.zeros((2, 1)))
    with pytest.raises(ValueError, match="'prompt 1' is nan"):
        calibration(["prompt 0", "prompt 1"], np.array([[0.0], [np.nan]]))
    with pytest.raises(ValueError, match="rows"):
        calibration(["prompt 0"], np.zeros((2, 1)))
