"""The least KL to a win rate, and the cheapest pairs of KL and N."""

import math

import numpy as np
import pytest

from infalign import BestOfN, Exponential, Log, WorstOfN, frontier, median_of, optimal_transform
from infalign.planner import cheapest, least_kl, target
from infalign.quantile.procedures import Identity


@pytest.mark.parametrize("procedure", [BestOfN(1), BestOfN(4), BestOfN(64), WorstOfN(4)])
@pytest.mark.parametrize("transform", ["optimal", Log(), Exponential(3.0)])
def test_the_least_kl_is_where_the_frontier_meets_the_target(procedure, transform):
    kl = least_kl(0.7, procedure, transform)
    assert frontier(procedure, [kl], transform)[0] == pytest.approx(0.7, abs=1e-9)


def test_the_log_transform_in_closed_form():
    """F = u^M wins M/(M+1) by best-of-N at KL log M − 1 + 1/M, whatever N."""
    for procedure in (BestOfN(1), BestOfN(8)):
        assert least_kl(0.9, procedure, Log()) == pytest.approx(math.log(9) - 8 / 9, abs=1e-9)


def test_no_transform_needs_less_than_the_optimal_one():
    least = least_kl(0.85, BestOfN(4))
    assert all(least < least_kl(0.85, BestOfN(4), t) for t in (Log(), Exponential(5.0)))


def test_the_reference_with_more_candidates_may_win_enough_untrained():
    assert least_kl(0.8, BestOfN(4), reference_procedure=Identity()) == 0
    assert least_kl(0.81, BestOfN(4), reference_procedure=Identity()) > 0
    assert least_kl(0.5, BestOfN(4)) == 0


def test_a_target_out_of_reach_says_what_is_reached():
    reached = frontier(BestOfN(1), [0.5])[0]
    with pytest.raises(ValueError, match=f"at KL 0.5 nats.*the best is {reached:.4f}"):
        least_kl(0.95, BestOfN(1), largest_kl=0.5)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.2, -0.1, math.nan])
def test_targets_that_are_no_win_rates_are_refused(target):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        least_kl(target, BestOfN(4))
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        cheapest(target, [1, 2])


def test_against_one_opponent_more_candidates_need_less_kl():
    ways = cheapest(0.95, [1, 2, 4, 8, 16, 32])
    kls = [way.kl for way in ways]
    assert kls == sorted(kls, reverse=True)
    assert kls[-1] == 0
    assert math.isnan(ways[-1].beta)
    assert all(way.is_efficient for way in ways)
    four = ways[2]
    best = optimal_transform(BestOfN(4), kl=four.kl, reference_procedure=Identity())
    assert (best.win_rate, four.beta) == (pytest.approx(0.95, abs=1e-9), pytest.approx(best.beta))


def test_only_pairs_that_nothing_beats_are_efficient():
    ways = cheapest(0.8, [BestOfN(4), WorstOfN(2), median_of(3), BestOfN(8), BestOfN(1)])
    # Best-of-4 is there already, for half the candidates of best-of-8; median-of-3 lies between.
    assert [way.is_efficient for way in ways] == [True, False, True, False, True]
    assert ways[0].kl == ways[3].kl == 0


def test_the_knee_and_the_price():
    ways = cheapest(0.95, [1, 2, 4, 8, 16, 32], kl_price=4.0)
    knee = [way for way in ways if way.is_knee]
    assert len(knee) == 1
    assert 1 < knee[0].candidates < 32
    costs = [way.candidates + 4.0 * way.kl for way in ways]
    assert [way.is_cheapest for way in ways] == [cost == min(costs) for cost in costs]
    dear = cheapest(0.95, [1, 2, 4, 8, 16, 32], kl_price=1e6)
    assert dear[-1].is_cheapest
    assert not any(way.is_cheapest for way in cheapest(0.95, [1, 2]))


def test_what_does_not_reach_is_marked_and_all_failing_is_an_error():
    ways = cheapest(0.97, [1, 64], largest_kl=1.0)
    assert math.isnan(ways[0].kl)
    assert not ways[0].is_efficient
    assert ways[1].is_efficient
    with pytest.raises(ValueError, match="out of reach"):
        cheapest(0.97, [1, 2], largest_kl=0.1)
    with pytest.raises(ValueError, match="kl_price is 0"):
        cheapest(0.9, [1], kl_price=0)
    with pytest.raises(ValueError, match="integer"):
        cheapest(0.9, [0])


def test_decoded_alike_the_opponent_grows_with_n():
    alike = cheapest(0.9, [1, 4, 16], reference_procedure=None)
    alone = cheapest(0.9, [1, 4, 16])
    assert alike[0].kl == pytest.approx(alone[0].kl)
    assert all(a.kl > b.kl for a, b in zip(alike[1:], alone[1:], strict=True))
    assert np.diff([way.kl for way in alike]).max() < 0


def _failing_on(monkeypatch, module, name):
    """No optimum of the procedure of that name is found."""
    solve = module.optimal_transform

    def stubborn(procedure, **asked):
        if procedure.name == name:
            raise ArithmeticError(f"No law for {name} was found. Ask for a smaller KL.")
        return solve(procedure, **asked)

    monkeypatch.setattr(module, "optimal_transform", stubborn)


def test_one_unsolved_row_leaves_the_others(monkeypatch):
    expected = cheapest(0.9, [1, 4])
    _failing_on(monkeypatch, target, "best-of-2")
    ways = cheapest(0.9, [1, 2, 4])
    assert [ways[0].kl, ways[2].kl] == [way.kl for way in expected]
    assert math.isnan(ways[1].kl)
    assert ways[1].unsolved == "No law for best-of-2 was found."
    assert not ways[1].is_efficient
    with pytest.raises(ArithmeticError, match="best-of-2"):
        cheapest(0.9, [2])


def test_out_of_reach_says_the_best_of_all():
    best = frontier(BestOfN(8), [0.1], reference_procedure=Identity())[0]
    with pytest.raises(ValueError, match=f"with best-of-8.*the best is {best:.4f}"):
        cheapest(0.999, [8, 1, 2], largest_kl=0.1)
    with pytest.raises(ValueError, match=r"A win rate of 0\.999999999 is out of reach"):
        cheapest(0.999999999, [1], agreement=0.5)
