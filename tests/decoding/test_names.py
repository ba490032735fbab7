"""Procedures on text by name: all that [0,1] knows, and what looks inside a response."""

import pytest

from infalign.decoding.blockwise import BlockwiseBestOfN
from infalign.decoding.mcmc import mcmc, qalign
from infalign.decoding.names import (
    TEXT_PROCEDURE_NAMES,
    text_procedure_from_name,
    text_procedure_settings,
)
from infalign.decoding.search import BlockSearch, TreeSearch
from infalign.decoding.selection import Selection
from infalign.decoding.voting import MajorityVote, MinimumBayesRisk, WeightedVote
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
    ("given", "settings", "procedure"),
    [
        ("best_of_n(8, at_once=2, maximum=1)", {}, Selection(BestOfN(8), 2, maximum=1)),
        ("blockwise_best_of_4(block=16)", {}, BlockwiseBestOfN(4, 16)),
        ("blockwise-best-of-n", {"n": 4, "block": 8}, BlockwiseBestOfN(4, 8)),
        ("majority_vote(8, extract=last_number)", {}, MajorityVote(8, "last_number")),
        ("majority-vote", {"n": 8}, MajorityVote(8)),
        ("weighted_vote(8, 0.5)", {}, WeightedVote(8, 0.5)),
        ("minimum_bayes_risk(8, exact_match)", {}, MinimumBayesRisk(8, "exact_match")),
        ("qalign(0.5)", {"steps": 64}, qalign(0.5, 64)),
        ("qalign(extract=last_number, beta=0.5)", {}, qalign(0.5, extract="last_number")),
        ("mcmc(0.5, steps=8, chains=2)", {}, mcmc(0.5, 8, chains=2)),
        ("mcmc", {"n": 4, "steps": 8}, mcmc(n=4, steps=8)),
        ("mcmc(transform=log)", {"beta": 0.5}, mcmc(0.5, transform="log")),
        ("block_search(2, 4, 8)", {}, BlockSearch(2, 4, block=8)),
        ("block_search(beta=0.5)", {}, BlockSearch(beta=0.5)),
        ("tree_search(8, calibrated=1)", {}, TreeSearch(8, calibrated=True)),
    ],
)
def test_names_of_what_looks_inside_a_response(given, settings, procedure):
    assert text_procedure_from_name(given, **settings) == procedure


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
        (lambda: text_procedure_from_name("majority_vot", n=4), "Did you mean 'majority_vote'"),
        (lambda: text_procedure_from_name("majority_vote(8, extract=last_nomber)"), "last_number"),
        (lambda: text_procedure_from_name("minimum_bayes_risk(8, utility=rug)"), "rouge"),
        (lambda: text_procedure_from_name("qalign(0)"), "beta"),
        (lambda: text_procedure_from_name("qalign(steps=-1)"), "-1"),
        (lambda: text_procedure_from_name("mcmc(nan)"), "beta"),
        (lambda: text_procedure_from_name("weighted_vote(8, -1)"), "beta"),
        (lambda: text_procedure_from_name("blockwise_best_of_4(block=0)"), "block"),
        (lambda: text_procedure_from_name("block_search(width=0)"), "width"),
        (lambda: text_procedure_from_name("mcmc(steps=many)"), "a number is needed"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest_right_one(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_settings_are_told():
    assert text_procedure_settings("identity") == ["at_once", "minimum", "maximum"]
    assert text_procedure_settings("best_of_n")[0] == "n"
    assert text_procedure_settings("order_statistic")[0] == "probabilities"  # and no label
    assert text_procedure_settings("qalign")[:2] == ["beta", "steps"]
    assert all("self" not in text_procedure_settings(name) for name in TEXT_PROCEDURE_NAMES)


def test_settings_by_place_fill_what_names_leave_free():
    chain = text_procedure_from_name("qalign(32, beta=0.5)")
    assert chain == text_procedure_from_name("qalign", beta=0.5, steps=32)


@pytest.mark.parametrize("name", ["qalign(beta=1, beta=2)", "best_of_4(n=8)"])
def test_a_setting_that_comes_twice_is_refused(name):
    with pytest.raises(ValueError, match="came twice"):
        text_procedure_from_name(name)
