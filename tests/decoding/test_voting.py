"""Votes follow their exact laws, and say what the tilt says when there are many of them."""

import dataclasses
import importlib.util
import warnings

import numpy as np
import pytest
from scipy import stats

from infalign.decoding import (
    MajorityVote,
    MinimumBayesRisk,
    Selection,
    WeightedVote,
    budget_of,
    decode,
)
from infalign.decoding.voting import (
    EXTRACT_NAMES,
    UTILITY_NAMES,
    ExactMatch,
    LastMatch,
    Pairwise,
    Rouge,
    Utility,
    bayes_risk,
    boxed,
    extract_from_name,
    last_number,
    tilt_weights,
    utility_from_name,
    vote,
)
from infalign.decoding.voting.choosing import shares
from infalign.policies import Alignment, TabularLM
from infalign.prompts import Prompt
from infalign.quantile.atoms.voting import MajorityVote as VoteLaw
from infalign.quantile.procedures import BestOfN

FALSE_ALARM = 1e-5
ANSWERS = 4000
LM = TabularLM.random(("x",), ("a", "b", "c"), 4, np.random.default_rng(3))
MASSES, TEXTS = LM.masses[0], LM.texts()


def first_letter(text):
    """What a text says: its first letter; nothing where it is empty."""
    return text[:1] or None


KEYS = [first_letter(text) for text in TEXTS]


class Grades:
    """Fixed rewards, drawn once for each of the table's texts."""

    name = "grades"

    def __init__(self, spread=1.0, favourite="c"):
        rng = np.random.default_rng(7)
        lift = np.array([1.0 if key == favourite else 0.0 for key in KEYS])
        self.values = lift + spread * rng.standard_normal(len(TEXTS))
        self.known = dict(zip(TEXTS, self.values, strict=True))

    def __call__(self, prompts, responses):
        return np.array([[self.known[text] for text in row] for row in responses])


def answered(procedure, answers=ANSWERS, seed=0, reward=None, policy=LM):
    prompts = [Prompt.from_text("x")] * answers
    return decode(policy, prompts, reward, procedure, rng=np.random.default_rng(seed))


def key_masses(masses):
    """Mass of a, b, c and of saying nothing."""
    return np.array([masses[[k == key for k in KEYS]].sum() for key in ("a", "b", "c", None)])


def counted(decoded):
    said = [first_letter(one.text) for one in decoded]
    return np.array([said.count(key) for key in ("a", "b", "c", None)])


def p_value(counts, law):
    expected = law * counts.sum()
    if counts[expected == 0].any():
        return 0.0
    kept = expected > 0
    return stats.power_divergence(counts[kept], expected[kept], lambda_=0).pvalue


# --- choosing among weighted answers ---


def test_the_heaviest_key_wins_and_one_that_says_it_answers():
    rng = np.random.default_rng(0)
    keys = ["a", "b", "a", "b", "c"]
    assert {vote(keys, np.array([1, 2, 1, 1, 1.5]), rng) for _ in range(50)} == {1, 3}
    assert {vote(keys, np.array([0, 0, 3, 1, 1.5]), rng) for _ in range(50)} == {2}


def test_ties_are_broken_evenly_between_keys_and_by_weight_within_one():
    """3000 draws, four outcomes: G-test, false alarm 1e-5; picking the first is noticed."""
    rng = np.random.default_rng(1)
    weights = np.array([3.0, 1.0, 2.0, 2.0, 1.0])
    drawn = [vote(["a", "a", "b", "b", "c"], weights, rng) for _ in range(3000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert p_value(counts[:4], np.array([0.375, 0.125, 0.25, 0.25])) > FALSE_ALARM
    assert p_value(np.array([3000, 0, 0, 0]), np.array([0.375, 0.125, 0.25, 0.25])) < FALSE_ALARM


def test_ties_in_rounded_sums_are_ties():
    """0.1 + 0.2 is not 0.3 in floating point, but it is as much weight."""
    rng = np.random.default_rng(2)
    drawn = {vote(["a", "a", "b"], np.array([0.1, 0.2, 0.3]), rng) for _ in range(100)}
    assert drawn == {0, 1, 2}


def test_who_says_nothing_has_no_vote_unless_nobody_says_anything():
    rng = np.random.default_rng(3)
    assert vote([None, None, "a"], np.ones(3), rng) == 2
    assert {vote([None, None], np.ones(2), rng) for _ in range(50)} == {0, 1}


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan], [1.0, np.inf]])
def test_weights_that_are_none_are_refused(weights):
    for choose in (
        lambda: vote(["a", "b"], np.array(weights), np.random.default_rng(0)),
        lambda: bayes_risk(["a", "b"], np.array(weights), ExactMatch(), np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match="one finite weight ≥ 0 for each"):
            choose()
    with pytest.raises(ValueError, match="no answers came"):
        vote([], np.ones(0), np.random.default_rng(0))


def test_huge_and_tiny_weights_are_weights():
    rng = np.random.default_rng(4)
    for scale in (1e-300, 1e300):
        assert vote(["a", "b", "a"], scale * np.array([1.0, 3.0, 1.0]), rng) == 1


def test_least_bayes_risk_by_hand():
    """Lengths 1, 2, 9 with utility −|difference|: the weighted median answers."""
    utility = Pairwise(lambda text, right: -abs(len(text) - len(right)))
    texts, rng = ["i", "ii", "iiiiiiiii"], np.random.default_rng(5)
    assert bayes_risk(texts, np.ones(3), utility, rng) == 1
    assert bayes_risk(texts, np.array([1, 1, 5]), utility, rng) == 2


def test_the_utility_is_of_the_answer_against_what_is_right():
    """Not symmetric: worth is the share of the right one's letters that the answer has."""
    recall = Pairwise(lambda text, right: sum(letter in text for letter in right) / len(right))
    texts, rng = ["ab", "a", "b"], np.random.default_rng(6)
    assert bayes_risk(texts, np.ones(3), recall, rng) == 0
    precision = Pairwise(lambda text, right: recall.function(right, text))
    assert bayes_risk(texts, np.ones(3), precision, rng) in (1, 2)


def test_equal_texts_are_compared_once():
    asked = []

    def worth(text, right):
        asked.append((text, right))
        return float(text == right)

    texts = ["a", "b"] * 50
    bayes_risk(texts, np.ones(100), Pairwise(worth), np.random.default_rng(7))
    assert sorted(asked) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]


def test_one_that_is_worth_very_little_makes_no_others_equals():
    utility = Broken(np.array([[0.5, 0.5, 0.4], [0.5, 0.5, 0.5], [-1e30, -1e30, 0.0]]))
    drawn = {
        bayes_risk(["a", "b", "c"], np.ones(3), utility, np.random.default_rng(i))
        for i in range(20)
    }
    assert drawn == {1}


@dataclasses.dataclass
class Broken:
    """A utility that gives what it is told to."""

    gives: np.ndarray
    name: str = "broken"

    def __call__(self, texts, right):
        return self.gives


def test_a_utility_that_is_none_is_refused():
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match=r"gave shape \(3,\)"):
        bayes_risk(["a", "b"], np.ones(2), Broken(np.ones(3)), rng)
    with pytest.raises(ValueError, match="of 'a' against 'b' is not finite"):
        bayes_risk(["a", "b"], np.ones(2), Broken(np.array([[1, np.nan], [1, 1]])), rng)
    assert isinstance(Broken(np.ones(1)), Utility)


# --- majority vote ---


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("at_once", [None, 1])
def test_majority_vote_follows_its_exact_law(n, at_once):
    """4000 answers over 3 keys against the closed form; another number of votes is told apart."""
    # Without the sequences that say nothing every vote counts, as in the closed form.
    lm = TabularLM.from_masses(LM, np.where([k is None for k in KEYS], 0, LM.masses) / said())
    exact = VoteLaw(n).decoded_masses(key_masses(lm.masses[0])[:3])
    decoded = answered(MajorityVote(n, first_letter, at_once), policy=lm)
    counts = counted(decoded)[:3]
    assert p_value(counts, exact) > FALSE_ALARM
    if n == 5:
        plain = key_masses(lm.masses[0])[:3]
        assert p_value(counts, plain) < FALSE_ALARM
        assert p_value(counts, VoteLaw(15).decoded_masses(plain)) < FALSE_ALARM
    spent = budget_of(decoded).responses
    assert spent == n if at_once is None or n < 3 else spent < n


def said():
    return 1 - key_masses(MASSES)[3]


def test_stopping_early_keeps_the_law_over_texts_and_stops_when_it_may():
    """Not only which key wins: the text that answers is a fair specimen of it."""
    n = 5
    early = answered(MajorityVote(n, first_letter, at_once=1))
    whole = answered(MajorityVote(n, first_letter), seed=1)
    ids = [[one.candidates[one.index].token_ids for one in run] for run in (early, whole)]
    table = np.array([np.bincount([LM.places[i] for i in run], minlength=121) for run in ids])
    frequent = table[:, table.sum(0) >= 20]
    both = np.column_stack([frequent, table.sum(1) - frequent.sum(1)])
    assert stats.chi2_contingency(both[:, both.sum(0) > 0]).pvalue > FALSE_ALARM
    for one in early:
        votes = [*sorted(one.details["votes"].values(), reverse=True), 0]
        left = n - len(one.candidates)
        assert left == 0 or len(votes) < 2 or votes[0] - votes[1] > left
        assert one.details["votes"].get(first_letter(one.text), votes[0]) == votes[0]


def test_majority_vote_needs_no_reward_and_reports_votes():
    (one,) = answered(MajorityVote(9, first_letter), 1)
    keys = [first_letter(response.text) for response in one.candidates]
    assert one.details["votes"] == {key: keys.count(key) for key in set(keys) - {None}}
    assert np.isnan(one.rewards).all()
    assert len(one.rewards) == 9


def test_texts_vote_without_the_space_around_them():
    assert extract_from_name("text")(" yes\n") == "yes"
    assert MajorityVote(3) == MajorityVote(3, "text")


# --- weighted vote ---


def test_shares_of_many_weighted_votes_are_those_of_the_tilt():
    """20,000 samples: the error of each key's share against its own standard error (5 of them).

    The errors are those of self-normalised importance sampling, Σ ŵ²(1[κ] − p)². Negative control:
    equal weights, which estimate the policy and not its tilt, are off by more than 20 of them.
    """
    reward, beta, n = Grades(), 0.7, 20_000
    tilted = key_masses(LM.tilt(reward.values[None], beta).masses[0])
    (row,) = LM.sample(["x"], n, np.random.default_rng(9))
    rewards = reward(["x"], [[response.text for response in row]])[0]
    weights = tilt_weights(rewards, beta)
    keys = np.array([str(first_letter(response.text)) for response in row])
    for key, p in zip(("a", "b", "c", "None"), tilted, strict=True):
        error = np.sqrt(np.sum((weights * ((keys == key) - p)) ** 2))
        assert abs(weights @ (keys == key) - p) < 5 * error
    worst = max(
        abs((keys == key).mean() - p) / np.sqrt(p / n)
        for key, p in zip(("a", "b", "c"), tilted, strict=False)
    )
    assert worst > 20


def test_its_answer_tends_to_the_mode_of_the_tilt():
    """The policy says most often what the tilt does not; the vote turns from one to the other."""
    reward, beta = Grades(0.3, favourite="c"), 0.4
    tilt = key_masses(LM.tilt(reward.values[None], beta).masses[0])
    mode, plain = (np.argmax(law[:3]) for law in (tilt, key_masses(MASSES)))
    assert mode != plain
    few, many = (
        counted(answered(WeightedVote(n, beta, first_letter), 200, reward=reward))[mode] / 200
        for n in (1, 512)
    )
    assert few < 0.6
    assert many > 0.98
    assert counted(answered(MajorityVote(512, first_letter), 20))[plain] == 20


@pytest.mark.parametrize("n", [1, 5])
def test_at_the_ends_it_is_majority_vote_and_best_of_n(n):
    """Same seed, same candidates: β → ∞ votes as equals do, β → 0 answers with the best."""
    reward = Grades()
    votes = answered(WeightedVote(n, 1e9, first_letter), 300, reward=reward)
    for one in votes:
        counts = shares([first_letter(r.text) for r in one.candidates], np.ones(n))
        said = first_letter(one.text)
        assert said is None or counts[said] == max(counts.values())
    best = answered(WeightedVote(n, 1e-6), 300, reward=reward)
    assert all(one.rewards[one.index] == max(one.rewards) for one in best)
    whole = answered(Selection(BestOfN(n)), 300, reward=reward)
    assert [one.candidates for one in best] == [one.candidates for one in whole]
    assert [one.text for one in best] == [one.text for one in whole]


def test_the_record_has_shares_and_how_many_samples_they_rest_on():
    (one,) = answered(WeightedVote(8, 0.5, first_letter), 1, reward=Grades())
    weights = tilt_weights(np.array(one.rewards), 0.5)
    assert one.details["effective_samples"] == pytest.approx(1 / np.sum(weights**2))
    assert sum(one.details["votes"].values()) <= 1 + 1e-12
    assert one.details["votes"][first_letter(one.text)] == max(one.details["votes"].values())


def test_weights_of_extreme_rewards_are_finite():
    for scale in (1e-300, 1.0, 1e300):
        weights = tilt_weights(np.array([-scale, 0.0, scale]), scale)
        np.testing.assert_allclose(weights, np.exp([-2, -1, 0]) / np.exp([-2, -1, 0]).sum())
    np.testing.assert_allclose(tilt_weights(np.array([0.0, 1.0]), 1e-300), [0, 1])


# --- minimum Bayes risk ---


@pytest.mark.parametrize("beta", [None, 0.5])
def test_with_exact_match_it_is_the_vote(beta):
    """Same seed: the same answers, to the index, as majority or weighted vote."""
    reward = Grades() if beta else None
    risk = answered(MinimumBayesRisk(7, ExactMatch(), beta), 300, reward=reward)
    other = MajorityVote(7) if beta is None else WeightedVote(7, beta)
    for one, two in zip(risk, answered(other, 300, reward=reward), strict=True):
        assert (one.text, one.index, one.candidates) == (two.text, two.index, two.candidates)
    differing = answered(MinimumBayesRisk(7, Pairwise(lambda a, b: -abs(len(a) - len(b)))), 300)
    assert [one.text for one in differing] != [one.text for one in risk]


def test_it_answers_with_the_expected_utility_s_best():
    """Against the definition, term by term."""
    utility = Pairwise(lambda text, right: -abs(len(text) - len(right)))
    for one in answered(MinimumBayesRisk(6, utility, beta=0.5), 100, reward=Grades()):
        weights = np.exp(np.array(one.rewards) / 0.5)
        lengths = np.array([len(response.text) for response in one.candidates])
        worth = -np.abs(lengths[:, None] - lengths) @ weights / weights.sum()
        assert worth[one.index] == pytest.approx(worth.max())
        np.testing.assert_allclose(one.details["agreement"], worth, atol=1e-12)


SENTENCES = [
    "the cat sat on the mat",
    "a cat was sitting on the mat",
    "the cat sat on a mat.",
    "dogs bark",
    "",
]


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
@pytest.mark.parametrize("is_stemmed", [False, True])
def test_rouge_is_that_of_rouge_score(kind, is_stemmed):
    pytest.importorskip("rouge_score")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=is_stemmed)
    utility = Rouge(kind, is_stemmed)
    expected = [[scorer.score(r, t)[kind].fmeasure for r in SENTENCES] for t in SENTENCES]
    np.testing.assert_allclose(utility(SENTENCES, SENTENCES), expected, atol=1e-15)
    np.testing.assert_allclose(
        utility(SENTENCES[:2], SENTENCES), np.array(expected)[:2], atol=1e-15
    )


def test_longest_common_subsequences_are_the_library_s():
    """400 random pairs of up to 90 words, past the 64 bits of a machine word."""
    pytest.importorskip("rouge_score")
    from rouge_score.rouge_scorer import RougeScorer

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefg"), rng.integers(0, 90))) for _ in range(20)]
    scorer = RougeScorer(["rougeL"])
    expected = [[scorer.score(r, t)["rougeL"].fmeasure for r in texts] for t in texts]
    np.testing.assert_allclose(Rouge()(texts, texts), expected, atol=1e-15)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_bleu_and_chrf_are_those_of_sacrebleu(name):
    sacrebleu = pytest.importorskip("sacrebleu")
    whole = {"bleu": sacrebleu.sentence_bleu, "chrf": sacrebleu.sentence_chrf}[name]
    expected = [[whole(text, [right]).score for right in SENTENCES] for text in SENTENCES]
    ours = utility_from_name(name)(SENTENCES, SENTENCES)
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert np.abs(ours - ours.T).max() > 1, "which way round it goes must matter"


def test_the_answer_that_agrees_most_is_in_the_middle():
    pytest.importorskip("rouge_score")
    index = bayes_risk(SENTENCES, np.ones(5), Rouge(), np.random.default_rng(0))
    assert SENTENCES[index] in SENTENCES[:3]


def test_texts_without_words_agree_with_nothing_and_are_no_error():
    pytest.importorskip("rouge_score")
    assert bayes_risk(["", "。", "！"], np.ones(3), Rouge(), np.random.default_rng(0)) in range(3)


def test_a_utility_whose_library_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("rouge_l", "bleu", "chrf"):
        with pytest.raises(ImportError, match=r"pip install 'infalign\[vote\]'"):
            MinimumBayesRisk(4, name)
    assert MinimumBayesRisk(4, "exact_match").n == 4


# --- what an answer says ---


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("the answer is 42.", "42"),
        ("#### 1,234,567", "1234567"),
        ("3.50 dollars", "3.5"),
        ("x = -7", "-7"),
        ("x = −7", "-7"),
        ("0.0 or −0", "0"),
        ("version1 has none", None),
        ("", None),
        ("10 and then 20", "20"),
        ("1,2", "2"),
        ("100%", "100"),
        ("1000000", "1000000"),
        ("it costs $5", "5"),
        ("5-3", "3"),
        # Longer than any float or default precision.
        ("1234567890123456789012345678901", "1234567890123456789012345678901"),
        ("1234567890123456789012345678902.50", "1234567890123456789012345678902.5"),
        ("1e5", "100000"),
        ("1.20e+1", "12"),
        ("5E-3", "0.005"),
        ("12.5e−1", "1.25"),
        ("1e400", "1e400"),
        ("10e399", "1e400"),
        ("-0.1e-400", "-1e-401"),
        ("0e99", "0"),
        ("00100", "100"),
        ("1e00000000005", "100000"),
        ("1e99999999999", None),
        ("3e5x", "3"),
        ("2 e5", "2"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_the_last_number_in_one_spelling(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{1} no, \boxed{\frac{3}{4}}", r"\frac{3}{4}"),
        (r"\boxed{1,000}", "1000"),
        (r"\boxed{1e3}", "1000"),
        (r"\boxed{2e99999999999}", None),
        (r"\boxed{ x + y }", "x + y"),
        (r"\boxed{cut of", None),
        (r"\boxed{}", None),
        ("42", None),
    ],
)
def test_what_stands_in_the_box(text, key):
    assert boxed(text) == key


def test_a_regular_expression_of_one_s_own():
    letter = LastMatch(r"answer is \(?([A-D])\)?")
    assert letter("the answer is (B). No: the answer is C") == "C"
    assert letter("who knows") is None
    assert LastMatch(r"[A-D]")("A or B") == "B"
    assert LastMatch(r"x(y)?")("x") is None
    assert letter == LastMatch(r"answer is \(?([A-D])\)?")  # fields are its identity
    assert hash(MajorityVote(4, letter)) == hash(MajorityVote(4, letter))
    with pytest.raises(ValueError, match="is not a regular expression"):
        LastMatch("(")


# --- tilting twice ---


@pytest.mark.parametrize("make", [WeightedVote, lambda n, b: MinimumBayesRisk(n, "exact_match", b)])
def test_weighing_by_the_reward_a_policy_was_aligned_by_is_warned_of(make):
    reward = Grades()
    aligned = LM.tilt(reward.values[None], 1.0, Alignment("grades", 1.0))
    with pytest.warns(UserWarning, match=r"by grades at β = 1.*one tilt at β = 0\.5"):
        answered(make(4, 1.0), 2, reward=reward, policy=aligned)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answered(make(4, 1.0), 2, reward=reward)
        answered(MinimumBayesRisk(4, "exact_match"), 2, reward=reward, policy=aligned)


# --- bad input ---


@pytest.mark.parametrize("n", [0, -1, True, 1.5, float("nan"), float("inf"), 10**6])
def test_numbers_of_votes_that_are_none_are_refused(n):
    makers = (MajorityVote, lambda n: WeightedVote(n, 1.0), lambda n: MinimumBayesRisk(n, "bleu"))
    for make in makers:
        with pytest.raises(ValueError, match="n is"):
            make(n)
    with pytest.raises(ValueError, match="at_once is"):
        MajorityVote(4, at_once=0)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_betas_that_are_none_are_refused(beta):
    with pytest.raises(ValueError, match="beta is"):
        WeightedVote(4, beta)
    with pytest.raises(ValueError, match="beta is"):
        MinimumBayesRisk(4, "exact_match", beta)


def test_unknown_names_get_the_nearest_right_one():
    with pytest.raises(ValueError, match="Did you mean 'last_number'"):
        MajorityVote(4, "last_numbr")
    with pytest.raises(ValueError, match="Did you mean 'rouge_l'"):
        MinimumBayesRisk(4, "rouge-ll")
    with pytest.raises(ValueError, match="kind is"):
        Rouge("rouge9")
    assert all(callable(extract_from_name(name)) for name in EXTRACT_NAMES)
    assert all(utility_from_name(name).name for name in UTILITY_NAMES)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rewards_that_are_no_numbers_are_refused(bad):
    class Odd:
        name = "odd"

        def __call__(self, prompts, responses):
            return np.full((len(prompts), len(responses[0])), bad)

    for procedure in (WeightedVote(3, 1.0), MinimumBayesRisk(3, "exact_match", 1.0)):
        with pytest.raises(ValueError, match="candidate 0 to prompt"):
            answered(procedure, 2, reward=Odd())
        with pytest.raises(ValueError, match="needs a reward"):
            answered(procedure, 2)
