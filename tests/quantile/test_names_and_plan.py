"""Members by name, and the plan."""

import math

import pytest

from infalign.planner import plan
from infalign.quantile.names import (
    PROCEDURE_NAMES,
    TRANSFORM_NAMES,
    procedure_from_name,
    transform_from_name,
)
from infalign.quantile.procedures import (
    BestOfN,
    Identity,
    MetropolisHastings,
    OrderStatistic,
    RandomCount,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_geometric,
    best_of_poisson,
    median_of,
)
from infalign.quantile.transforms import Exponential, Log


def test_names_make_members():
    assert transform_from_name("exponential", t=10) == Exponential(10)
    assert transform_from_name("log") == Log()
    assert transform_from_name("optimal", procedure=BestOfN(4), kl=0.5).name == "optimal"
    assert procedure_from_name("identity") == Identity()
    assert procedure_from_name("best_of_n", n=4) == BestOfN(4)
    assert procedure_from_name("worst-of-3") == WorstOfN(3)
    assert procedure_from_name("median_of_5") == median_of(5)
    assert procedure_from_name("order_statistic", probabilities=(0.0, 1.0)).candidates == 2
    assert set(TRANSFORM_NAMES) == {"identity", "log", "exponential", "optimal"}
    assert len(PROCEDURE_NAMES) == 11


@pytest.mark.parametrize(
    ("given", "member"),
    [
        ("best-of-poisson(4)", best_of_poisson(4)),
        ("best_of_geometric(mean=3)", best_of_geometric(3)),
        ("Rewind-and-repeat(0.9, at_most=8)", RewindAndRepeat(0.9, 8)),
        ("soft_best_of_4(0.1)", SoftBestOfN(4, 0.1)),
        ("metropolis_hastings(16, n=5)", MetropolisHastings(16, beta=1 / 4)),
        ("metropolis_hastings(16)", MetropolisHastings(16)),
        ("order_statistic(0, 0, 1)", OrderStatistic((0, 0, 1))),
        ("random_count(0.5, 0, 0.5, rule=worst)", RandomCount((0.5, 0, 0.5), "worst")),
    ],
)
def test_settings_may_stand_in_brackets(given, member):
    assert procedure_from_name(given) == member


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: transform_from_name("exponentail"), "Did you mean 'exponential'"),
        (lambda: transform_from_name("logs"), "Did you mean 'log'"),
        (lambda: transform_from_name("zzz"), "Known: identity, log"),
        (lambda: transform_from_name("exponential", tt=10), "Did you mean 't'"),
        (lambda: transform_from_name("log", t=10), "takes no settings"),
        (lambda: transform_from_name("optimal", kl=0.5), "needs procedure"),
        (lambda: transform_from_name("optimal", procedure=BestOfN(4), beta=-1.0), "beta is -1"),
        (lambda: procedure_from_name("best_off_n", n=4), "Did you mean 'best_of_n'"),
        (lambda: procedure_from_name("best_of_n"), "needs n"),
        (lambda: procedure_from_name("best_of_n", n=0), "integer"),
        (lambda: procedure_from_name("best_of_poison(4)"), "Did you mean 'best_of_poisson'"),
        (lambda: procedure_from_name("best_of_poisson(0.5)"), "between 1 and 512"),
        (lambda: procedure_from_name("rewind_and_repeat(1.5, 8)"), "threshold is 1.5"),
        (lambda: procedure_from_name("rewind_and_repeat(0.5)"), "at_most did not come"),
        (lambda: procedure_from_name("rewind_and_repeat(0.5, atmost=8)"), "at_most did not come"),
        (lambda: procedure_from_name("best_of_n(a)"), "'a' came"),
        (lambda: procedure_from_name("best_of_n(1, 2)"), "2 settings"),
        (lambda: procedure_from_name("best_of_4(("), "brackets"),
        (lambda: procedure_from_name("order_statistic(0.2, 0.2)"), "sum to 1"),
        (lambda: procedure_from_name("metropolis_hastings(3, n=1)"), "n ≥ 2"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest_right_one(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4), BestOfN(32)])
def test_the_optimal_row_is_the_limit(procedure):
    rows = plan(procedure, kl=0.5)
    assert [r.transform for r in rows] == ["identity", "log", "exp(10)", "exp(-10)", "optimal"]
    assert rows[-1].fraction_of_limit == 1
    assert all(r.fraction_of_limit < 1 for r in rows[:-1])
    assert max(rows, key=lambda r: r.standard_win_rate).transform == "identity"
    assert all(0.5 < r.decoded_win_rate < 1 and r.beta > 0 for r in rows)


def test_a_plan_between_unlike_procedures():
    rows = plan(BestOfN(4), kl=0.5, reference_procedure=BestOfN(16), transforms=[Log()])
    assert rows[0].decoded_win_rate < rows[1].decoded_win_rate < 1
    with pytest.raises(ValueError, match=r"A KL of 0\.0 nats"):
        plan(BestOfN(4), kl=0.0)


def test_a_gold_judge_sees_less_and_has_an_optimum_of_its_own():
    rows = plan(BestOfN(4), kl=1.0, agreement=0.6)
    by_name = {row.transform: row for row in rows}
    assert rows[-1].transform == "optimal for gold"
    assert rows[-1].fraction_of_limit == 1
    assert all(row.gold_win_rate < row.decoded_win_rate for row in rows)
    assert max(rows, key=lambda row: row.gold_win_rate) is rows[-1]
    assert max(rows, key=lambda row: row.decoded_win_rate) is by_name["optimal"]
    assert by_name["optimal"].fraction_of_limit < 1
    for row in plan(BestOfN(4), kl=1.0):
        assert row.gold_win_rate == row.decoded_win_rate


def test_a_judge_who_knows_nothing_sees_nothing():
    for row in plan(BestOfN(4), kl=1.0, agreement=0.0):
        assert row.gold_win_rate == pytest.approx(0.5)
        assert math.isnan(row.fraction_of_limit)
    with pytest.raises(ValueError, match=r"agreement is 1\.2"):
        plan(BestOfN(4), kl=1.0, agreement=1.2)
