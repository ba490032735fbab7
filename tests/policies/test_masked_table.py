"""The masked table: its conditionals are those of its masses, whatever is erased."""

import itertools

import numpy as np
import pytest
from scipy import stats

from infalign.policies import MaskedTable
from infalign.protocols import Policy, Redrawer


def table(length=3, prompts=("x", "y"), spread=1.0):
    rng = np.random.default_rng(0)
    return MaskedTable.random(prompts, ("a", "b", "c"), length, rng, spread)


def test_it_is_a_policy_that_redraws():
    assert isinstance(table(), Policy)
    assert isinstance(table(), Redrawer)


def test_conditionals_agree_with_the_masses_for_every_gap():
    """p(y) = p(what is left)·p(y | what is left), and the first factors sum to 1."""
    model = table()
    for p, prompt in enumerate(model.prompts):
        for gaps in itertools.product((True, False), repeat=3):
            total = 0.0
            for ids in itertools.product(*[(None,) if gap else range(3) for gap in gaps]):
                places, law = model.fillings(prompt, ids)
                left = model.masses[p, places].sum()
                np.testing.assert_allclose(left * law, model.masses[p, places], atol=1e-15)
                fits = [
                    all(a in (None, b) for a, b in zip(ids, y, strict=True))
                    for y in model.sequences
                ]
                assert places.tolist() == np.flatnonzero(fits).tolist()
                total += left
            assert total == pytest.approx(1, abs=1e-12)


def test_draws_follow_the_conditional():
    """Pearson's χ² of 20,000 fillings; false alarm 1e-3. Negative control: the other prompt's."""
    model, gaps = table(), (None, 2, None)
    [row] = model.redraw(["y"], [gaps], 20_000, np.random.default_rng(0))
    places, law = model.fillings("y", gaps)
    counts = np.bincount([model.places[r.token_ids] for r in row], minlength=27)
    assert counts.sum() == counts[places].sum()
    assert stats.chisquare(counts[places], 20_000 * law).pvalue > 1e-3
    assert stats.chisquare(counts[places], 20_000 * model.fillings("x", gaps)[1]).pvalue < 1e-6
    for response in row[:20]:
        place = places.tolist().index(model.places[response.token_ids])
        assert response.log_prob == pytest.approx(np.log(law[place]))
        assert response.text == "".join("abc"[t] for t in response.token_ids)


def test_log_prob_is_that_of_the_whole_response():
    model = table()
    drawn = model.sample(["y", "x"], 50, np.random.default_rng(1))
    found = model.log_prob(["y", "x"], drawn)
    np.testing.assert_allclose(found, [[r.log_prob for r in row] for row in drawn], atol=1e-12)
    assert model.table().masses.tolist() == model.masses.tolist()


def test_responses_of_mass_zero_are_never_drawn():
    masses = np.array([[0.5, 0.0, 0.5, 0.0]])
    model = MaskedTable(("x",), ("a", "b"), 2, masses)
    [row] = model.redraw(["x"], [(None, None)], 1000, np.random.default_rng(0))
    assert {r.token_ids for r in row} == {(0, 0), (1, 0)}
    with pytest.raises(ValueError, match="has no mass"):
        model.redraw(["x"], [(None, 1)], 1, np.random.default_rng(0))


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="length is 0 in a masked table"):
        MaskedTable(("x",), ("a",), 0, np.ones((1, 1)))
    with pytest.raises(ValueError, match="one column for each of 8 sequences"):
        MaskedTable(("x",), ("a", "b"), 3, np.ones((1, 4)) / 4)
    with pytest.raises(ValueError, match="not probabilities"):
        MaskedTable(("x",), ("a", "b"), 1, np.array([[0.5, 0.6]]))
    with pytest.raises(ValueError, match="not probabilities"):
        MaskedTable(("x",), ("a", "b"), 1, np.array([[np.nan, 0.5]]))
    with pytest.raises(ValueError, match="3 tokens from 0 to 2 are needed"):
        table().redraw(["x"], [(0, 1)], 1, rng)
    with pytest.raises(ValueError, match="3 tokens from 0 to 2 are needed"):
        table().redraw(["x"], [(0, 1, 3)], 1, rng)
    for k in (0, True, 1.5):
        with pytest.raises(ValueError, match=f"k is {k}"):
            table().redraw(["x"], [(None, 0, 0)], k, rng)
    with pytest.raises(ValueError, match="not in this table of 2 prompts"):
        table().sample(["z"], 1, rng)
