"""A language model as a table: its sequences, its samples and its streams tell the same law."""

from typing import Any

import numpy as np
import pytest

from infalign.policies import TabularLM, streams
from infalign.protocols import Continuer, LogitPolicy

LM = TabularLM.random(("x", "y"), ("a", "b", "c"), 4, np.random.default_rng(0))
ANY: Any = LM  # its cached properties are properties, which the checker of types does not know


def total_variation(responses, law):
    counts = np.bincount([LM.places[r.token_ids] for r in responses], minlength=len(law))
    return 0.5 * np.abs(counts / counts.sum() - law).sum()


def test_it_is_what_procedures_ask_for():
    assert isinstance(LM, Continuer)
    assert isinstance(LM, LogitPolicy)


def test_the_masses_are_a_law_over_all_sequences():
    assert len(LM.sequences) == 121
    assert np.allclose(LM.masses.sum(1), 1, atol=1e-14)
    assert (LM.masses > 0).all()


def test_samples_follow_the_law():
    """120,000 draws over 121 sequences: the mean distance of true samples is 0.0105, sd 0.0007."""
    drawn = LM.sample(["y"], 120_000, np.random.default_rng(1))[0]
    assert total_variation(drawn, LM.masses[1]) < 0.0145
    assert total_variation(drawn, LM.masses[0]) > 0.1  # the other prompt's law is told apart


@pytest.mark.parametrize("beginning", [(), (1,), (2, 0, 1)])
def test_continuations_follow_the_conditional_law(beginning):
    rng, n = np.random.default_rng(2), len(beginning)
    drawn = LM.continue_from(["x"], [beginning], 40_000, rng)[0]
    assert {response.token_ids[:n] for response in drawn} == {beginning}
    inside = np.array([sequence[:n] == beginning for sequence in LM.sequences])
    law = np.where(inside, LM.masses[0], 0)
    assert total_variation(drawn, law / law.sum()) < 0.03
    nats = LM.log_prob(["x"], [drawn[:50]])[0] - np.log(law.sum())
    assert np.allclose([response.log_prob for response in drawn[:50]], nats, atol=1e-12)


def test_a_limit_cuts_new_tokens_and_can_be_gone_on_from():
    """Two tokens, then the rest, is the same law as all at once."""
    rng = np.random.default_rng(3)
    begun = LM.continue_from(["x"], [()], 40_000, rng, limit=2)[0]
    assert {len(r.token_ids) for r in begun if r.finish_reason == "limit"} == {2}
    open_ = [r.token_ids for r in begun if r.finish_reason == "limit"]
    rest = LM.continue_from(["x"] * len(open_), open_, 1, rng)
    done = [r for r in begun if r.finish_reason == "stop"] + [row[0] for row in rest]
    assert total_variation(done, LM.masses[0]) < 0.03


def test_a_response_is_cut_by_the_cap_or_ended():
    for response in LM.sample(["x"], 500, np.random.default_rng(4))[0]:
        ended = response.token_ids[-1] == LM.end
        assert response.finish_reason == ("stop" if ended else "length")
        assert ended or len(response.token_ids) == 4


def test_streams_read_the_same_laws():
    stream = LM.stream(["x", "y"], [(), (0,)])
    stream.extend([1, 1, 0], [2, 1, 0])
    wanted = LM.laws[[1, 1, 0], [LM.place((0, 2)), LM.place((0, 1)), LM.place((0,))]]
    assert np.allclose(np.exp(stream.log_law()), wanted, atol=1e-15)


def test_the_tilt_is_a_language_model_again():
    rewards = np.random.default_rng(5).standard_normal(LM.masses.shape)
    tilted = LM.tilt(rewards, beta=0.5)
    wanted = LM.masses * np.exp(rewards / 0.5)
    assert np.allclose(tilted.masses, wanted / wanted.sum(1, keepdims=True), atol=1e-14)
    assert np.allclose(tilted.table().masses, LM.table().tilt(rewards, 0.5).masses, atol=1e-14)


def test_impossible_beginnings_keep_their_laws():
    masses = np.zeros_like(LM.masses)
    masses[:, 0] = 1.0  # nothing is ever said
    silent = TabularLM.from_masses(LM, masses)
    assert np.allclose(silent.masses, masses)
    assert (silent.laws[:, 1:] == LM.laws[:, 1:]).all()


@pytest.mark.parametrize("beginning", [(3,), (0, 0, 0, 0)])
def test_nothing_follows_the_end(beginning):
    with pytest.raises(ValueError, match="nothing can follow"):
        LM.continue_from(["x"], [beginning], 1, np.random.default_rng(0))


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match=r"1 \+ V \+ V²"):
        TabularLM(("x",), ("a", "b"), np.full((1, 4, 3), 1 / 3))
    with pytest.raises(ValueError, match="sum to 1"):
        TabularLM(("x",), ("a", "b"), np.full((1, 3, 3), 0.3))
    with pytest.raises(ValueError, match="distinct prompt"):
        TabularLM(("x", "x"), ("a", "b"), np.full((2, 3, 3), 1 / 3))
    with pytest.raises(ValueError, match="not in this table"):
        LM.sample(["z"], 1, np.random.default_rng(0))


@pytest.mark.parametrize("count", [{"k": 0}, {"k": 2.5}, {"k": 1, "limit": 0}])
def test_nothing_is_drawn_of_counts_that_are_none(count):
    with pytest.raises(ValueError, match=r"a draw"):
        LM.continue_from(["x"], [()], rng=np.random.default_rng(0), **count)
    if "limit" not in count:
        with pytest.raises(ValueError, match=r"a draw"):
            LM.table().sample(["x"], count["k"], np.random.default_rng(0))


@pytest.mark.parametrize("beginning", [(-1,), (7,), (4,), (0, 5)])
def test_unknown_tokens_are_no_beginning(beginning):
    """With three tokens the place of (4,) would be that of (0, 0): none may stand for another."""
    with pytest.raises(ValueError, match="below 3"):
        LM.continue_from(["x"], [beginning], 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="below 3"):
        LM.stream(["x"], [beginning])
    with pytest.raises(ValueError, match=r"below 3|negative"):
        streams.draw(ANY, ["x"], [beginning], 1, np.random.default_rng(0))


def test_each_prompt_has_a_beginning():
    with pytest.raises(ValueError, match="one each"):
        LM.continue_from(["x", "y"], [()], 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="negative"):
        streams.check_beginnings(ANY, ["x"], [(0, -2)])
