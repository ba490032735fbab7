"""Selection on text: it stops as early as it may, and the answer's law does not notice."""

import dataclasses
import itertools
from typing import final

import numpy as np
import pytest
from scipy import stats

from infalign.decoding import Selection, budget_of, decode
from infalign.policies.tabular_lm import TabularLM
from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling
from infalign.quantile.calibration import Calibration
from infalign.quantile.procedures import (
    BestOfN,
    OrderStatistic,
    Procedure,
    RandomCount,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_poisson,
    check_procedure,
    median_of,
)

PROMPTS = [Prompt.from_text(f"question {i}") for i in range(2000)]
FALSE_ALARM = 1e-5


@dataclasses.dataclass
class Power:
    """Answers with a number of the law F(u) = u^power; two tokens each."""

    power: float = 1.0
    name: str = "power"
    fingerprint: str = "power"
    sampling: Sampling = dataclasses.field(default_factory=Sampling)

    def sample(self, prompts, k, rng):
        values = rng.random((len(prompts), k)) ** (1 / self.power)
        return [[Response(str(value), (1, 2)) for value in row] for row in values]

    def cdf(self, u):
        return np.asarray(u, dtype=float) ** self.power

    def density(self, u):
        return self.power * np.asarray(u, dtype=float) ** (self.power - 1)


class Number:
    name = "number"

    def __call__(self, prompts, responses):
        return np.array([[float(text) for text in row] for row in responses])


@final
class Known(Calibration):
    """Of a reference whose rewards are uniform: the reward is the quantile."""

    def __call__(self, prompt_ids, rewards):
        return rewards


def answered(procedure, law, seed=0, **options):
    return decode(
        law,
        PROMPTS,
        Number(),
        Selection(procedure, **options),
        calibration=Known(),
        rng=np.random.default_rng(seed),
    )


def require_law(decoded, procedure, law):
    """Kolmogorov–Smirnov of the answers against the exact law; chance of a false alarm 1e-5."""
    answers = [float(one.text) for one in decoded]
    p = stats.kstest(answers, lambda u: procedure.decoded_cdf(law, u)).pvalue
    assert p > FALSE_ALARM, p


def require_mean(numbers, expected):
    """4.5 standard errors: a false alarm of 7e-6."""
    numbers = np.asarray(numbers, dtype=float)
    assert abs(numbers.mean() - expected) < 4.5 * numbers.std() / np.sqrt(len(numbers))


# --- stopping early ---


@pytest.mark.parametrize("law", [Power(), Power(3.0)], ids=["reference", "aligned"])
@pytest.mark.parametrize("at_once", [None, 3])
def test_rewinding_stops_at_the_first_that_passes(law, at_once):
    procedure = RewindAndRepeat(0.8, at_most=8)
    decoded = answered(procedure, law, at_once=at_once)
    require_law(decoded, procedure, law)
    q, stride = law.cdf(0.8), at_once or 1
    # A batch is drawn where all batches before it failed; the last one is what is left of M.
    sizes = [min(stride, 8 - drawn) for drawn in range(0, 8, stride)]
    expected = sum(size * q**drawn for size, drawn in zip(sizes, range(0, 8, stride), strict=True))
    if at_once is None:
        assert expected == pytest.approx(procedure.mean_candidates(law))
    require_mean([one.budget.responses for one in decoded], expected)
    assert budget_of(decoded).tokens == 2 * budget_of(decoded).responses
    for one in decoded:
        assert len(one.candidates) == len(one.rewards) == len(one.quantiles)
        assert one.text == one.candidates[one.index].text


def test_the_law_test_can_fail():
    """Negative control: stopping at another threshold, or answering with the first of a batch."""
    decoded = answered(RewindAndRepeat(0.75, at_most=8), Power())
    with pytest.raises(AssertionError):
        require_law(decoded, RewindAndRepeat(0.8, at_most=8), Power())
    firsts = [dataclasses.replace(one, text=one.candidates[0].text) for one in decoded]
    with pytest.raises(AssertionError):
        require_law(firsts, RewindAndRepeat(0.75, at_most=8), Power())
    with pytest.raises(AssertionError):
        require_mean([8.0, 8.0, 8.0, 7.0], 5.0)


@pytest.mark.parametrize(
    "procedure",
    [
        best_of_poisson(3.0),
        RandomCount((0.3, 0.0, 0.5, 0.2), "worst"),
        RandomCount((0.1, 0.4, 0.5), "median"),
    ],
    ids=lambda p: p.name,
)
def test_a_random_count_is_drawn_before_the_candidates(procedure):
    law = Power(2.0)
    decoded = answered(procedure, law)
    require_law(decoded, procedure, law)
    require_mean([one.budget.responses for one in decoded], procedure.mean_candidates(law))
    assert all(np.isfinite(one.rewards).all() for one in decoded)


@pytest.mark.parametrize(
    "procedure",
    [BestOfN(4), WorstOfN(4), median_of(4), OrderStatistic((0.2, 0.3, 0.5)), SoftBestOfN(4, 0.1)],
    ids=lambda p: p.name,
)
def test_others_draw_all_whatever_the_stride(procedure):
    """Without ties nothing settles a rank before all have been seen."""
    for at_once in (None, 3):
        decoded = answered(procedure, Power(), at_once=at_once)
        require_law(decoded, procedure, Power())
        assert budget_of(decoded).responses == procedure.candidates


RANKS = [np.eye(n)[r] for n in (1, 2, 3, 5) for r in range(n)]


@pytest.mark.parametrize("p", RANKS, ids=lambda p: f"{int(p.argmax()) + 1} of {len(p)}")
@pytest.mark.parametrize("levels", [(0.0, 1.0), (0.0, 0.5, 1.0)], ids=["pass/fail", "three grades"])
def test_ranks_stop_exactly_when_nothing_can_change_the_answer(p, levels):
    """Every order of graded rewards: it stops as soon as all that may follow agree, not before."""
    procedure, n, rng = OrderStatistic(tuple(p)), len(p), np.random.default_rng(0)

    def value(rewards):
        return rewards[procedure.select(rewards, rng)]

    for k in range(1, n):
        for seen in map(np.array, itertools.product(levels, repeat=k)):
            futures = {
                value(np.append(seen, more)) for more in itertools.product(levels, repeat=n - k)
            }
            index = procedure.select_early(seen, rng, bounds=(0.0, 1.0))
            assert (index is not None) == (len(futures) == 1)
            assert index is None or {seen[index]} == futures


def test_mixed_ranks_stop_only_when_all_of_them_may():
    rng, ends = np.random.default_rng(0), OrderStatistic((0.5, 0.0, 0.5))
    assert ends.select_early(np.array([1.0, 1.0]), rng, bounds=(0.0, 1.0)) is None
    upper = OrderStatistic((0.0, 0.5, 0.5))
    assert upper.select_early(np.array([1.0, 1.0]), rng, bounds=(0.0, 1.0)) in (0, 1)
    assert ends.realised(rng).rank_probabilities.max() == 1.0


def table(spread=1.0):
    return TabularLM.random(("x",), ("a", "b"), 3, np.random.default_rng(5), spread)


class Passes:
    """1 where the text begins with b, else 0."""

    name = "passes"

    def __call__(self, prompts, responses):
        return np.array([[float(text[:1] == "b") for text in row] for row in responses])


@pytest.mark.parametrize(
    ("procedure", "stops"),
    [(BestOfN(6), 1), (WorstOfN(6), 0), (median_of(5), None)],
    ids=["best", "worst", "median"],
)
def test_pass_or_fail_settles_ranks_early_and_keeps_the_law_over_texts(procedure, stops):
    """4000 answers among 15 sequences: G-test against the exact law, false alarm 1e-5."""
    lm = table()
    prompts = [Prompt.from_text("x")] * 4000
    selection = Selection(procedure, minimum=0.0, maximum=1.0)
    decoded = decode(lm, prompts, Passes(), selection, rng=np.random.default_rng(1))
    passed = np.array([float(text[:1] == "b") for text in lm.texts()])
    masses, p = lm.masses[0], lm.masses[0] @ passed
    fails = procedure.rank_cdf(np.array(1 - p))  # G at the atom of those that fail
    exact = np.where(passed == 1, (1 - fails) * masses / p, fails * masses / (1 - p))
    counts = np.bincount(
        [lm.places[one.candidates[one.index].token_ids] for one in decoded], minlength=len(masses)
    )
    assert stats.power_divergence(counts, exact * 4000, lambda_=0).pvalue > FALSE_ALARM
    wrong = stats.power_divergence(counts, masses * 4000, lambda_=0).pvalue
    assert wrong < FALSE_ALARM, "the plain law must be told apart"
    spent = [one.budget.responses for one in decoded]
    if stops is not None:
        q = 1 - p if stops == 1 else p  # chance that one candidate does not settle it
        require_mean(spent, sum(q**k for k in range(6)))
    assert np.mean(spent) < procedure.candidates - 0.5


def test_a_wrong_early_stop_is_noticed():
    """Negative control of `check_procedure`: the first of two, whatever they are."""
    rewind = RewindAndRepeat(0.5, 4)

    @final
    @dataclasses.dataclass(frozen=True)
    class Hasty(Procedure):
        name = "hasty"
        candidates = 4
        is_sequential = True

        def decoded_density(self, mesh, density):
            return rewind.decoded_density(mesh, density)

        def first_variation(self, mesh, density, worth):
            return rewind.first_variation(mesh, density, worth)

        def select(self, quantiles, rng):
            return rewind.select(quantiles, rng)

        def select_early(self, quantiles, rng, *, bounds=(-np.inf, np.inf)):
            return 0 if len(quantiles) > 1 else None

        @property
        def breaks(self):
            return rewind.breaks

    with pytest.raises(ValueError, match="select_early and decoded_cdf disagree"):
        check_procedure(Hasty())


# --- bad input ---


@pytest.mark.parametrize("at_once", [0, -1, 1.5, True, float("nan")])
def test_a_stride_that_is_none_is_refused(at_once):
    with pytest.raises(ValueError, match="at_once is"):
        Selection(BestOfN(4), at_once=at_once)


@pytest.mark.parametrize(
    "bounds",
    [{"minimum": 1.0, "maximum": 1.0}, {"maximum": float("nan")}, {"minimum": -float("inf")}],
)
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="finite numbers are needed"):
        Selection(BestOfN(4), **bounds)


def test_bounds_are_for_ranks_only_and_must_be_true():
    with pytest.raises(ValueError, match="looks at quantiles"):
        Selection(RewindAndRepeat(0.5, 4), maximum=1.0)
    with pytest.raises(ValueError, match="outside of what was said"):
        decode(
            Power(),
            PROMPTS[:2],
            Number(),
            Selection(BestOfN(4), maximum=1e-9),
            rng=np.random.default_rng(0),
        )


@pytest.mark.parametrize("n", [0, -1, True, float("nan"), float("inf"), 1.5])
def test_a_number_of_candidates_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match="n is"):
        BestOfN(n)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_no_number_is_named_with_its_place(bad):
    class Late:
        """Sound for the first two candidates, then not a number."""

        name = "late"

        def __init__(self):
            self.asked = 0

        def __call__(self, prompts, responses):
            self.asked += 1
            return np.full((len(prompts), len(responses[0])), 0.1 if self.asked < 3 else bad)

    with pytest.raises(ValueError, match="candidate 2 to prompt"):
        decode(
            Power(),
            PROMPTS[:2],
            Late(),
            Selection(BestOfN(4), at_once=1),
            rng=np.random.default_rng(0),
        )
