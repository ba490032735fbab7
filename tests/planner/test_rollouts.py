"""What K calibration rollouts cost."""

import math

import numpy as np
import pytest

from infalign import BestOfN, Exponential, frontier
from infalign.planner import enough_rollouts, rollouts
from infalign.quantile.finite import finite_win_rate


def test_rows_hold_the_finite_win_rate_and_what_it_lacks():
    (row,) = rollouts(BestOfN(4), 0.5, [64], Exponential(10.0))
    perfect = frontier(BestOfN(4), [0.5], Exponential(10.0))[0]
    assert row.win_rate == finite_win_rate(Exponential(10.0), BestOfN(4), 64, 0.5)
    assert row.loss == pytest.approx(perfect - row.win_rate)
    assert row.fraction == pytest.approx((row.win_rate - 0.5) / (perfect - 0.5))


def test_more_rollouts_lose_less():
    rows = rollouts(BestOfN(4), 0.5, [16, 64, 256])
    assert all(np.diff([row.loss for row in rows]) < 0)
    assert rows[-1].loss < 0.005 < rows[0].loss


def test_rows_say_their_standard_error_and_agree_with_what_is_enough():
    phi = Exponential(10.0)
    rows = rollouts(BestOfN(8), 1.0, [32, 48, 64, 96, 128], phi)
    assert all(0 < row.se < 3e-4 for row in rows)
    assert all(np.diff([row.loss for row in rows]) < 0)
    assert enough_rollouts(BestOfN(8), 1.0, 1.0001 * rows[2].loss, phi) == 64
    assert enough_rollouts(BestOfN(8), 1.0, 0.9999 * rows[2].loss, phi) > 64


def test_few_rollouts_cannot_express_a_large_kl():
    few, many = rollouts(BestOfN(4), 2.0, [2, 64])
    assert math.isnan(few.win_rate)
    assert few.largest_kl == 1.5
    assert many.win_rate > 0.9


def test_enough_is_enough_and_fewer_are_not():
    k = enough_rollouts(BestOfN(4), 0.5, 0.02)
    assert rollouts(BestOfN(4), 0.5, [k])[0].loss <= 0.02
    assert rollouts(BestOfN(4), 0.5, [k * 3 // 4])[0].loss > 0.02


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rollouts(BestOfN(4), 0.5, [1]), "K is 1"),
        (lambda: rollouts(BestOfN(4), 0.5, [8], "best"), "'best'"),
        (lambda: enough_rollouts(BestOfN(4), 0.5, 0.0), "loss of 0"),
    ],
)
def test_bad_questions_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
