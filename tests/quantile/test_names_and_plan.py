"""Members by name, and the plan."""

import pytest

from infalign.planner import plan
from infalign.quantile.names import (
    PROCEDURE_NAMES,
    TRANSFORM_NAMES,
    procedure_from_name,
    transform_from_name,
)
from infalign.quantile.procedures import BestOfN, Identity, WorstOfN, median_of
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
    assert len(PROCEDURE_NAMES) == 5


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
    with pytest.raises(ValueError, match="kl is"):
        plan(BestOfN(4), kl=0.0)
