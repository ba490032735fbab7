"""Drawing, greedy, beams and scores from next-token laws, against a table of all sequences."""

import numpy as np
import pytest

from infalign.policies import TabularLM
from infalign.policies.beams import beam
from infalign.policies.streams import draw, greedy, score
from infalign.protocols import Response


@pytest.fixture(scope="module")
def lm():
    return TabularLM.random(("p", "q"), ("a", "b", "c"), 4, np.random.default_rng(3), spread=1.5)


def as_responses(lm, sequences):
    return [lm.response(ids, 0.0) for ids in sequences]


def test_scores_are_the_masses_of_the_table(lm):
    every = [as_responses(lm, lm.sequences)] * 2
    assert np.abs(score(lm, lm.prompts, every) - np.log(lm.masses)).max() <= 1e-12


def test_draws_follow_the_law_and_know_their_log_probability(lm):
    """20,000 draws of 121 sequences: χ² below its 1 − 1e-4 quantile, about 184."""
    drawn = draw(lm, ("q",), None, 20_000, np.random.default_rng(0), rows=5000)[0]
    counts = np.bincount([lm.places[one.token_ids] for one in drawn], minlength=121)
    expected = 20_000 * lm.masses[1]
    often = expected > 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    assert ((observed - wanted) ** 2 / wanted).sum() < 184
    told = np.array([one.log_prob for one in drawn[:200]])
    assert np.abs(told - score(lm, ("q",), [drawn[:200]])[0]).max() <= 1e-12


def test_how_many_rows_are_written_at_once_changes_nothing(lm):
    one, many = (
        draw(lm, ("p", "q"), [(0,), ()], 5, np.random.default_rng(1), rows=rows) for rows in (3, 64)
    )
    assert one == many
    assert all(answer.token_ids[0] == 0 for answer in one[0])


def test_a_limit_leaves_beginnings_that_can_go_on(lm):
    drawn = draw(lm, ("p",), [(1,)], 200, np.random.default_rng(1), limit=2)[0]
    assert {one.finish_reason for one in drawn} == {"stop", "limit"}
    assert max(len(one.token_ids) for one in drawn) == 3
    # The log-probability is that of the new tokens.
    beginning = float(np.log(lm.laws[0, 0, 1]))
    whole = [one for one in drawn if one.finish_reason == "stop"]
    scores = score(lm, ("p",), [whole])[0]
    assert np.abs(scores - beginning - [one.log_prob for one in whole]).max() <= 1e-12


def test_one_beam_is_greedy_and_enough_beams_find_the_likeliest(lm):
    ones = [row[0] for row in beam(lm, lm.prompts, 1)]
    assert ones == greedy(lm, lm.prompts)
    many = beam(lm, lm.prompts, len(lm.beginnings))
    for row, masses in zip(many, lm.masses, strict=True):
        best = np.argsort(-masses)[:5]
        assert [lm.places[one.token_ids] for one in row[:5]] == best.tolist()
        assert abs(row[0].log_prob - np.log(masses.max())) <= 1e-12


def test_greedy_may_miss_the_likeliest_response():
    """Negative control: the search is a search. a, then one of three; b, then the end."""
    laws = np.full((1, 4, 4), 0.25)
    laws[0, 0], laws[0, 2] = [0.6, 0.4, 0, 0], [0, 0, 0, 1]
    lm = TabularLM(("x",), ("a", "b", "c"), laws)
    assert greedy(lm, ("x",))[0].text == "aa"
    assert beam(lm, ("x",), 2)[0][0].text == "b"


def test_beams_may_be_ranked_by_another_score_which_may_rise(lm):
    """Score: minus the log-probability. Then the least likely response is the highest."""
    every = beam(lm, ("p",), 81, scores=lambda _, law, high: high[:, None] - law, falls=False)
    assert lm.places[every[0][0].token_ids] == lm.masses[0].argmin()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda lm: draw(lm, ("p",), None, 0, np.random.default_rng()), "k is 0"),
        (lambda lm: draw(lm, ("p",), None, True, np.random.default_rng()), "k is True"),
        (lambda lm: draw(lm, ("p",), None, 1, np.random.default_rng(), limit=0), "limit is 0"),
        (lambda lm: draw(lm, ("p",), [(3,)], 1, np.random.default_rng()), "has ended"),
        (lambda lm: greedy(lm, ("p",), [(0, 0, 0, 0)]), "length cap of 4"),
        (lambda lm: greedy(lm, ("p", "q"), [()]), "1 beginnings came for 2"),
        (lambda lm: beam(lm, ("p",), 0), "width is 0"),
        (lambda lm: beam(lm, ("p",), 1.5), "width is 1.5"),
        (lambda lm: beam(lm, ("p",), 2, rows=0), "rows is 0"),
        (lambda lm: score(lm, ("p",), [[Response("")]]), "is empty"),
        (lambda lm: score(lm, ("p",), [[Response("", (3, 1))]]), "goes on after its end"),
        (lambda lm: score(lm, ("p",), [[Response("", (0,) * 5)]]), "longer than 4"),
    ],
)
def test_what_cannot_be_written_is_refused(lm, call, said):
    with pytest.raises(ValueError, match=said):
        call(lm)
