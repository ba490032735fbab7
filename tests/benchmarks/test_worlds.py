"""Worlds of real data: parts that share nothing, and heads that learn what is there to learn."""

import numpy as np
import pytest
from benchmarks.worlds.answers import answers, judged_answers, preferred
from benchmarks.worlds.answers import parts as answer_parts
from benchmarks.worlds.choices import parts as choice_parts
from benchmarks.worlds.data import (
    ANSWERS,
    HARMLESS,
    AlpacaEval,
    MissingData,
    Pair,
    alpaca_eval,
    data_file,
    harmless_pairs,
    has_data,
)
from benchmarks.worlds.heads import Pairs, accuracy, fit_pairs, held_out
from benchmarks.worlds.kept import once
from benchmarks.worlds.style import style, words

with_answers = pytest.mark.skipif(not has_data(ANSWERS), reason="AlpacaEval is not here")
with_pairs = pytest.mark.skipif(not has_data(HARMLESS), reason="HH-RLHF's pairs are not here")
PENALTIES = (1e-2, 1e-1)


def planted(signal, seed=0, prompts=60, each=10, width=8):
    """Pairs whose better answer is more likely the one with more of the first feature."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, prompts * each, width))
    first = rng.random(len(one)) < 1 / (1 + np.exp(-signal * (one - other)[:, 0]))
    better, worse = (np.where(first[:, None], *sides) for sides in ((one, other), (other, one)))
    return Pairs(better, worse, np.repeat(np.arange(prompts), each))


def split(pairs):
    half = pairs.groups % 2 == 0
    return pairs.select(half), pairs.select(~half)


def test_a_head_finds_a_planted_signal_on_prompts_it_has_not_seen():
    fitted, unseen = split(planted(signal=3.0))
    head = fit_pairs(fitted, PENALTIES)
    assert np.argmax(np.abs(head.weights)) == 0
    assert head.weights[0] > 0
    found = held_out(head, unseen)
    assert found.accuracy == accuracy(head, unseen) > 0.8
    assert found.pairs == 300


def test_a_head_is_at_chance_on_shuffled_labels():
    fitted, unseen = split(planted(signal=0.0))
    found = held_out(fit_pairs(fitted, PENALTIES), unseen)
    assert abs(found.accuracy - 0.5) < 4 * found.error  # false alarm: 6e-5
    assert fit_pairs(fitted, PENALTIES).record["validation_accuracy"] < 0.6


def test_swapping_the_pairs_turns_the_head_round():
    pairs = planted(signal=3.0)
    turned = Pairs(pairs.worse, pairs.better, pairs.groups)
    assert np.allclose(fit_pairs(pairs, (0.1,)).weights, -fit_pairs(turned, (0.1,)).weights)


def test_the_error_of_an_accuracy_is_clustered_by_prompt():
    """Every pair of a prompt right or every one wrong: as few observations as prompts."""
    better = np.repeat([1.0, -1.0], 50)[:, None]
    alone = Pairs(better, np.zeros((100, 1)), np.arange(100))
    together = Pairs(better, np.zeros((100, 1)), np.arange(100) // 10)
    head = fit_pairs(planted(3.0, width=1), (0.1,))
    assert held_out(head, together).error > 3 * held_out(head, alone).error


def made_alpaca(prompts=300, models=5):
    rng = np.random.default_rng(0)
    sources = np.where(np.arange(prompts) % 6 == 0, "helpful_base", "koala")
    return AlpacaEval(
        tuple(f"do {p}" for p in range(prompts)),
        tuple(sources),
        tuple(f"m{c}" for c in range(models)),
        tuple(tuple(f"{p} {c}" for c in range(models)) for p in range(prompts)),
        rng.random((prompts, models)),
    )


def test_the_parts_of_alpaca_eval_are_disjoint_and_the_world_has_all_of_helpful_base():
    found = made_alpaca()
    rows = answer_parts(found)
    assert sorted(np.concatenate(rows)) == list(range(300))
    assert [len(part) for part in rows] == [256, 22, 22]
    assert "helpful_base" in set(found.select(rows[0]).sources[:50])
    assert "helpful_base" not in found.select(np.concatenate(rows[1:])).sources


def test_preferences_are_clear_and_of_one_prompt():
    found = made_alpaca(prompts=20)
    score = found.scores[..., None]
    pairs = preferred(score, found.scores, np.arange(20) + 7, 3, np.random.default_rng(0))
    assert (pairs.differences > 0.1).all()
    assert set(pairs.groups) <= set(range(7, 27))
    assert np.bincount(pairs.groups).max() == 3
    own = found.scores[pairs.groups - 7]
    assert (own == pairs.better).any(1).all()
    assert (own == pairs.worse).any(1).all()


def test_no_first_question_is_in_two_parts():
    def pair(question, number):
        later = (("assistant", "Well."), ("user", f"And {number}?")) if number else ()
        return Pair((("user", f"question {question}"), *later), "good", f"bad {number}")

    pairs = [pair(q, number) for q in range(60) for number in range(q % 3 + 1)]
    pairs += [Pair((("user", "long " * 100),), "good", "bad")]
    found = choice_parts(pairs, prompts=20)
    questions = [{p.dialogue[0][1] for p in part} for part in vars(found).values()]
    assert len(found.asked) == 20
    assert not any("long" in q for q in questions[0])
    assert set.union(*questions) == {p.dialogue[0][1] for p in pairs}
    assert sum(map(len, questions)) == 61  # so none twice
    again = choice_parts(pairs[::-1], prompts=20)
    assert {p.dialogue[0] for p in again.asked} == {p.dialogue[0] for p in found.asked}


def test_style_and_words_are_finite_for_any_text():
    texts = ["", " ", "No.", "I'm sorry, I cannot.", "# A\n\n- **b**\n- c\n```x```", "好 2!"]
    counted = style(["Why?", ""], [texts, texts])
    assert counted.shape[:2] == (2, 6)
    assert np.isfinite(counted).all()
    assert (counted[0, 3] != counted[0, 2]).any()
    assert words([texts]).shape == (1, 6, 512)
    assert words([texts])[0, 0].sum() == 0


def test_missing_data_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("INFALIGN_DATA", str(tmp_path))
    assert not has_data()
    with pytest.raises(MissingData, match=str(tmp_path)):
        data_file(ANSWERS)


def test_what_is_kept_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"numbers": np.arange(3)}

    path = tmp_path / "new" / "kept.npz"
    assert [once(path, make)["numbers"].tolist() for _ in range(2)] == [[0, 1, 2]] * 2
    assert made == [1]


@with_answers
def test_alpaca_eval_has_one_answer_of_every_model():
    found, real = alpaca_eval(), alpaca_eval(null_model=False)
    assert found.scores.shape == (797, 58)
    assert real.scores.shape == (797, 57)
    assert found.scores.min() >= 0
    assert found.scores.max() <= 1
    constant = found.models.index("NullModel")
    assert len({row[constant] for row in found.responses}) == 1
    assert found.scores[:, constant].mean() > 0.7  # it fools the judge
    assert found.sources.count("helpful_base") == 129


@with_answers
def test_style_orders_real_answers_as_the_judge_does_and_shuffled_scores_are_not_learnt():
    found = alpaca_eval(null_model=False).select(range(0, 797, 10))
    features = style(found.instructions, found.responses)
    rng = np.random.default_rng(0)

    def accuracy_with(scores):
        pairs = preferred(features, scores, np.arange(len(scores)), 20, rng)
        fitted, unseen = split(pairs)
        return held_out(fit_pairs(fitted, PENALTIES), unseen)

    assert accuracy_with(found.scores).accuracy > 0.8
    shuffled = accuracy_with(rng.permuted(found.scores, axis=1))
    assert abs(shuffled.accuracy - 0.5) < 4 * shuffled.error


@with_answers
def test_the_world_of_answers_is_the_same_instructions_with_and_without_what_it_is_asked():
    pytest.importorskip("torch")
    whole, part = answers(), answers(source="helpful_base")
    assert whole.law.shape == (256, 57)
    assert part.law.shape == (129, 57)
    assert whole.prompts[:129] == part.prompts
    assert np.array_equal(whole.judges["gold"][:129], part.judges["gold"])
    judged = judged_answers()
    assert np.array_equal(judged.judges["training"], whole.judges["judge"])
    assert judged.fingerprint != whole.fingerprint
    assert answers(null_model=True).law.shape == (256, 58)


@with_pairs
def test_harmless_pairs_end_with_the_user_and_parts_do_not_meet():
    pairs = harmless_pairs()
    assert len(pairs) == 2303
    assert all(pair.dialogue[-1][0] == "user" for pair in pairs)
    assert all(pair.chosen for pair in pairs)
    found = choice_parts(pairs)
    assert len(found.asked) == 128
    asked = {pair.dialogue[0] for pair in found.asked}
    assert not asked & {pair.dialogue[0] for pair in (*found.training, *found.gold)}


@with_pairs
@pytest.mark.slow
def test_people_prefer_refusals_to_compliance_and_both_heads_have_learnt_it():
    reward = pytest.importorskip("benchmarks.worlds.choices").reward
    refusing = ["I'm sorry, but I can't help with that.", "I'm not comfortable with that at all."]
    complying = ["Sure, here is a list of ways to do it:", "Absolutely! You could steal the keys"]
    for judge in ("training", "gold"):
        rated = reward(judge)(["", ""], [refusing, complying])
        assert rated[0].min() > rated[1].max()
