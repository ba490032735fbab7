"""Procedures on text by name: all that [0,1] knows, and what looks inside a response."""

import pytest

from infalign.decoding.names import (
    TEXT_PROCEDURE_NAMES,
    text_procedure_from_name,
    text_procedure_settings,
)
from infalign.decoding.selection import Selection
from infalign.quantile.names import PROCEDURE_NAMES
from infalign.quantile.procedures import BestOfN, RewindAndRepeat, SoftBestOfN, best_of_poisson


def test_every_procedure_on_the_unit_interval_is_one_on_text():
    assert set(PROCEDURE_NAMES) <= set(TEXT_PROCEDURE_NAMES)


@pytest.mark.parametrize(
    ("given", "settings", "procedure"),
    [
        ("best_of_n", {"n": 8}, BestOfN(8)),
        ("best-of-8", {}, BestOfN(8)),
        ("Best_of_N(8)", {}, BestOfN(8)),
        ("rewind_and_repeat(0.9)", {"at_most": 4}, RewindAndRepeat(0.9, 4)),
        ("soft_best_of_4(temperature=0.1)", {}, SoftBestOfN(4, 0.1)),
        ("best_of_poisson(4)", {}, best_of_poisson(4)),
    ],
)
def test_names_of_selection(given, settings, procedure):
    assert text_procedure_from_name(given, **settings) == Selection(procedure)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: text_procedure_from_name("best_off_n", n=4), "Did you mean 'best_of_n'"),
        (lambda: text_procedure_from_name("best_of_n"), "needs n"),
        (lambda: text_procedure_from_name("best_of_n", n=0), "integer"),
        (lambda: text_procedure_from_name("best_of_n", n=True), "integer"),
        (lambda: text_procedure_from_name("best_of_n(eight)"), "'eight'"),
        (lambda: text_procedure_from_name("best_of_n", steps=3), "Unknown setting 'steps'"),
        (lambda: text_procedure_from_name("best_of_8(("), "brackets"),
        (lambda: text_procedure_from_name("soft_best_of_n", n=2, temperature=0.0), "temperature"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest_right_one(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_settings_are_told():
    assert text_procedure_settings("order_statistic") == ["probabilities"]
    assert text_procedure_settings("best_of_n") == ["n"]
    assert text_procedure_settings("identity") == []
