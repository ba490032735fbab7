"""The headline follows the numbers: which policy, how much, and whether it can be told at all."""

import pytest

from infalign.report import (
    Act,
    Checkpoint,
    Comparison,
    Curve,
    Difference,
    Estimate,
    Frontier,
    PolicyValue,
)
from infalign.report.finding import find_difference, fraction_of_limit, headline, limit_at
from infalign.report.numbers import duration, percent, points, real, shorten
from infalign.report.tables import comparisons


def _comparison(
    value, se, kl=0.5, split="held-out", *, judge="r", procedure="best-of-4", turn=False
):
    pair = ("raw", "inf") if turn else ("inf", "raw")
    found = Difference(*pair, Estimate(-value if turn else value, se, 25))
    wins = (PolicyValue("inf", Estimate(0.7 + value)), PolicyValue("raw", Estimate(0.7)))
    return Comparison(kl, split, judge, procedure, wins, (found,))


def _act(*found, **others) -> Act:
    options = {"reward": "r", "treatment": "inf", "baseline": "raw", "comparisons": found} | others
    return Act("a", **options)


def test_a_gain_is_said_with_its_interval():
    # t(24) = 2.0639: 0.05 ± 2.0639 · 0.01.
    assert headline(_act(_comparison(0.05, 0.01))) == (
        "At an equal KL of 0.50 nats, on held-out prompts inf beats raw by 5.0 points of "
        "best-of-4 win rate (95\u00a0% interval 2.9 to 7.1)."
    )


def test_a_loss_is_said_as_plainly_as_a_gain():
    assert headline(_act(_comparison(-0.05, 0.01))) == (
        "At an equal KL of 0.50 nats, on held-out prompts inf falls behind raw by 5.0 points of "
        "best-of-4 win rate (95\u00a0% interval 2.9 to 7.1)."
    )


@pytest.mark.parametrize("value", [0.012, -0.012, 0.0])
def test_an_interval_that_covers_zero_is_no_significant_difference(value: float):
    sentence = headline(_act(_comparison(value, 0.01)))
    assert "there is no significant difference between inf and raw" in sentence
    assert "beats" not in sentence
    assert "behind" not in sentence
    assert f"({points(value)} points" in sentence


def test_without_an_error_nothing_is_called_significant():
    sentence = headline(_act(_comparison(0.05, None)))
    assert "no standard error known" in sentence
    assert "beats" not in sentence


def test_both_sets_of_prompts_are_told_training_prompts_first():
    sentence = headline(_act(_comparison(0.0, 0.01), _comparison(0.1, 0.01, split="train")))
    assert sentence.index("on training prompts inf beats") < sentence.index("on held-out prompts")
    assert "; on held-out prompts there is no significant difference (0.0 points" in sentence


def test_different_kls_are_named_each():
    act = _act(_comparison(0.1, 0.01, kl=0.3), _comparison(0.1, 0.01, kl=0.9, split="train"))
    assert "(KL 0.90 nats)" in headline(act)
    assert "(KL 0.30 nats)" in headline(act)


def test_the_headline_is_taken_at_the_target_kl_else_at_the_largest():
    found = [_comparison(kl / 10, 0.001, kl=kl) for kl in (0.25, 0.5, 1.0)]
    assert "KL of 0.25 nats" in headline(_act(*found, target_kl=0.3))
    assert "KL of 1.00 nats" in headline(_act(*found))


def test_only_the_training_reward_after_the_procedure_makes_the_headline():
    assert headline(_act(_comparison(0.1, 0.01, judge="gold"))) == ""
    assert headline(_act(_comparison(0.1, 0.01, procedure="standard"))) == ""
    assert headline(_act()) == ""
    assert headline(_act(_comparison(0.1, 0.01), treatment="")) == ""


def test_a_difference_recorded_the_other_way_is_turned_round():
    turned = _comparison(0.05, 0.01, turn=True)
    assert headline(_act(turned)) == headline(_act(_comparison(0.05, 0.01)))
    found = find_difference(turned, "inf", "raw")
    assert found is not None
    assert found.difference == Estimate(0.05, 0.01, 25)
    assert find_difference(turned, "inf", "other") is None


def test_the_table_is_bold_only_where_the_interval_excludes_zero():
    (table,) = comparisons(_act(_comparison(0.05, 0.01), _comparison(0.01, 0.01, kl=0.7)))
    assert [row[1].look for row in table.rows[1:]] == ["strong", "faint"]
    assert table.rows[1][1].text == "+5.0 [+2.9, +7.1]"


def test_the_fraction_of_the_limit_is_of_the_room_above_one_half():
    limit = Curve("limit", (0.0, 0.25, 1.0), (0.5, 0.75, 0.9))
    frontier = Frontier("train", limit)
    at = Checkpoint(Estimate(0.25), Estimate(0.625, 0.025, 10))
    part = fraction_of_limit(frontier, at)
    assert part is not None
    assert (part.value, part.se, part.prompts) == pytest.approx((0.5, 0.1, 10))
    own = Checkpoint(Estimate(0.25), Estimate(0.7), limit=0.7)
    part = fraction_of_limit(frontier, own)
    assert part is not None
    assert part.value == pytest.approx(1.0)


def test_the_limit_is_interpolated_in_the_root_of_kl_and_never_extrapolated():
    kls = [0.0, 0.04, 0.16, 0.36]
    frontier = Frontier("train", Curve("limit", kls, [0.5 + 0.5 * kl**0.5 for kl in kls]))
    assert limit_at(frontier, 0.01) == pytest.approx(0.55)
    assert limit_at(frontier, 0.4) is None
    assert limit_at(Frontier("train"), 0.1) is None
    start = Checkpoint(Estimate(0.0), Estimate(0.5))
    assert fraction_of_limit(frontier, start) is None


def test_numbers_read_as_people_write_them():
    assert percent(None) == "–"
    assert percent(0.5) == "50.0\u00a0%"
    assert [points(d) for d in (0.0123, -0.0123, -0.0001, 0.0)] == ["+1.2", "−1.2", "0.0", "0.0"]
    assert real(-1.005) in ("−1.00", "−1.01")
    assert [duration(s) for s in (0.25, 59.94, 59.96, 3599.9)] == [
        "0.25 s",
        "59.9 s",
        "1 min 0 s",
        "1 h 0 min",
    ]
    assert shorten("two\nlines", 20) == "two lines"
