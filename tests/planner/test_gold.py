"""Where more candidates or more KL stop helping by a gold judge."""

import numpy as np
import pytest

from infalign import BestOfN, TiltedPolicy, optimal_transform, win_rate
from infalign.planner import gold_by_kl, gold_by_n, stops_at
from infalign.quantile.procedures import Identity


def test_rows_are_the_win_rates_of_the_proxys_optimum():
    row = gold_by_n(0.6, 0.5, [1, 4])[1]
    best = optimal_transform(BestOfN(4), kl=0.5, reference_procedure=Identity())
    policy = TiltedPolicy(best, best.beta)
    assert row.proxy_win_rate == pytest.approx(best.win_rate, abs=1e-9)
    assert row.gold_win_rate == pytest.approx(
        win_rate(policy, BestOfN(4), Identity(), agreement=0.6)
    )


def test_gold_gains_less_and_less_and_stops_later_than_the_proxy():
    rows = gold_by_n(0.6, 1.0, [1, 4, 16, 64, 256])
    assert all(np.diff([row.gain for row in rows[1:]]) < 0)
    stop = stops_at(rows)
    assert stop is not None
    assert stop.candidates == 64
    same = stops_at(gold_by_n(1.0, 1.0, [1, 4, 16, 64, 256]))
    assert same is not None
    assert same.candidates < stop.candidates


def test_the_worth_of_kl_grows_with_agreement():
    gains = [
        gold_by_kl(rho, BestOfN(4), [0.0, 1.0])[1].gain for rho in (-0.5, 0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert gains[0] < 0
    assert gains[1] == pytest.approx(0, abs=1e-9)
    assert gains[2:5] == sorted(gains[2:5])
    assert stops_at(gold_by_kl(0.0, BestOfN(4), [0.0, 1.0])) is not None


def test_an_agreement_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"agreement is 1\.2"):
        gold_by_n(1.2, 1.0, [1])
