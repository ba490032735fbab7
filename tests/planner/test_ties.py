"""Plans by a reward that gives many answers the same value."""

import math

import pytest

from infalign import BestOfN, Exponential, Log, WorstOfN, optimal_transform
from infalign.planner import cheapest, enough_rollouts, least_kl, plan, rollouts
from infalign.quantile.finite import finite_win_rate
from infalign.quantile.procedures import Identity
from infalign.quantile.ties import Ties


def passing(n: int, p: float) -> float:
    """P(some of n passes)."""
    return 1 - (1 - p) ** n


def chance_at(kl: float, p: float) -> float:
    """The pass probability q ≥ p with KL(q‖p) = kl, by bisection."""
    low, high = p, 1.0
    for _ in range(200):
        q = (low + high) / 2
        spent = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else math.inf
        low, high = (q, high) if spent < kl else (low, q)
    return low


@pytest.mark.parametrize("n", [1, 4, 16, 64])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_by_pass_or_fail_every_transform_wins_what_counting_says(n, p):
    """Bernoulli against Bernoulli: W = ½ + (passes − passes of the reference)/2, at any N."""
    kl = -0.8 * math.log(p)
    expected = 0.5 + (passing(n, chance_at(kl, p)) - passing(n, p)) / 2
    rows = plan(BestOfN(n), kl, ties=Ties.pass_fail(p))
    assert [row.decoded_win_rate for row in rows] == pytest.approx([expected] * 5, abs=1e-9)
    assert rows[-1].transform == "optimal"


def test_the_optimum_of_two_values_is_the_one_that_is_solved_for():
    for procedure in (BestOfN(4), WorstOfN(3)):
        best = optimal_transform(procedure, kl=0.5, ties=Ties.pass_fail(0.3))
        row = plan(procedure, 0.5, ties=Ties.pass_fail(0.3))[-1]
        assert row.decoded_win_rate == pytest.approx(best.win_rate, abs=1e-9)


def test_ties_below_hardly_matter_to_best_of_and_those_above_do():
    none, low, high = (
        plan(BestOfN(4), 0.5, ties=Ties(pairs))[-1].decoded_win_rate
        for pairs in ((), ((0, 0.3),), ((0.7, 1),))
    )
    assert none == pytest.approx(low, abs=1e-3)
    assert high < none - 0.1


def test_a_gold_judge_and_ties_together():
    rows = plan(BestOfN(4), 0.5, ties=Ties(((0, 0.4),)), agreement=0.6)
    assert rows[-1].transform == "optimal for gold"
    assert max(row.gold_win_rate for row in rows) == rows[-1].gold_win_rate
    assert all(row.fraction_of_limit <= 1 for row in rows)


@pytest.mark.parametrize("transform", ["optimal", Log()])
@pytest.mark.parametrize("ties", [Ties.pass_fail(0.3), Ties(((0, 0.4),)), Ties(((0.8, 1),))])
def test_the_least_kl_reaches_the_target(transform, ties):
    kl = least_kl(0.6, BestOfN(4), transform, ties=ties)
    rows = plan(BestOfN(4), kl, transforms=[Log()], ties=ties)
    found = {"log": rows[0], "optimal": rows[1]}[getattr(transform, "name", "optimal")]
    assert found.decoded_win_rate == pytest.approx(0.6, abs=1e-9)


def test_a_target_beyond_the_best_tie_is_out_of_reach():
    """Who always passes wins or draws 1 − 0.3/2 = 0.85 against one that passes with 0.3."""
    assert least_kl(0.84, BestOfN(1), ties=Ties.pass_fail(0.3)) < math.log(1 / 0.3)
    with pytest.raises(ValueError, match="out of reach"):
        least_kl(0.851, BestOfN(1), ties=Ties.pass_fail(0.3))
    ways = cheapest(0.84, [1, 8], ties=Ties.pass_fail(0.3), reference_procedure=Identity())
    assert ways[0].kl > ways[1].kl > 0


def test_rollouts_by_ties():
    ties = Ties(((0, 0.4),))
    (row,) = rollouts(BestOfN(4), 0.5, [64], Exponential(5.0), ties=ties)
    assert row.win_rate == finite_win_rate(Exponential(5.0), BestOfN(4), 64, 0.5, ties=ties)
    pass_fail = Ties.pass_fail(0.3)
    (row,) = rollouts(BestOfN(64), 0.5, [16], ties=pass_fail)
    assert row.win_rate > 0.5
    # Two values need no calibration beyond telling them apart.
    few, many = (enough_rollouts(BestOfN(4), 0.5, 0.01, ties=t) for t in (pass_fail, Ties()))
    assert few < many


@pytest.mark.parametrize("ask", [plan, lambda p, kl, ties: rollouts(p, kl, [16], Log(), ties=ties)])
def test_a_kl_beyond_the_best_tie_is_refused(ask):
    with pytest.raises(ValueError, match=r"probability 0.3, so less than 1.20397 nats"):
        ask(BestOfN(4), 1.3, ties=Ties.pass_fail(0.3))
