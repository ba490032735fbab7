"""Calibration: uniform where it should be, found out where it is not; splits share no answer."""

import dataclasses

import numpy as np
import pytest
from benchmarks.calibration import run, shown
from benchmarks.calibration.rollouts import skewed
from benchmarks.calibration.splits import Split
from benchmarks.calibration.uniform import rejected_prompts, uniformity
from benchmarks.worlds.data import AlpacaEval

from infalign.quantile.procedures import BestOfN
from infalign.quantile.transforms import Exponential


@pytest.fixture(scope="module")
def found():
    return run.main(["--smoke"])["made"]


def test_left_out_is_uniform_and_left_in_is_not(found):
    """Distances of some thousand values. False alarm below 1e-3 for a fixed seed."""
    few = found["uniform"]["4"]
    values = found["prompts"] * 20 * run.SMOKE.repeats
    assert few["left out"]["distance of all"] < 2.0 / np.sqrt(values)  # KS: P(D√n > 2) = 7e-4
    # Itself counted as a judge: 1/(2K) away at K = 4.
    assert few["left in"]["distance of all"] == pytest.approx(1 / 8 - 1 / 40, abs=0.04)


def test_the_pull_to_half_is_one_over_k(found):
    for k in ("4", "16"):
        pull = found["pull"][k]
        assert abs(pull["left out"]["value"]) < 4 * pull["left out"]["se"]
        assert abs(pull["left in"]["value"] - 1 / int(k)) < 4 * pull["left in"]["se"]
        assert pull["left in"]["low"] > 0  # the control is seen


def test_a_global_calibration_is_found_out_prompt_by_prompt(found):
    assert found["rejected prompts"]["global"] > 0.5 > 0.15 > found["rejected prompts"]["own"]
    alike = np.random.default_rng(3).normal(size=(200, 57))  # nothing for a prompt to differ by
    assert rejected_prompts(alike, np.random.default_rng(4), 2)["global"] < 0.12


def test_answers_of_other_systems_do_not_calibrate():
    """Systems of different quality are not exchangeable: rejected when they calibrate alone."""
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(300, 20)) + np.linspace(-2, 2, 20)
    tests = uniformity(scores, 8, 4, rng)
    assert tests["other systems"]["rejected"] == 1
    assert tests["left out"]["rejected"] < 0.5


def test_the_error_of_u_is_that_of_a_continuous_reward(found):
    for row in found["error of u"]:
        assert abs(row["rms"] - row["continuous"]) < 4 * row["se"]


def test_the_posterior_mean_beats_the_plain_quantile(found):
    gains = {(row["transform"], row["k"]): row["gain"] for row in found["costs"]}
    assert gains["optimal", 16]["low"] > 0


def test_ranks_alone_decide_what_calibration_costs():
    """Any increasing warp of the scores changes nothing at all."""
    scores = skewed(30, 57, np.random.default_rng(6))
    won = [
        Split.rollouts(values, 16, 1, np.random.default_rng(7))
        for values in (scores, np.cbrt(scores))
    ]
    kept = [s.won(s.posterior(Exponential(10), 16), BestOfN(4), 1.0).per_prompt for s in won]
    np.testing.assert_allclose(*kept, atol=1e-9)
    raw = [s.won(s.judged, BestOfN(4), 1.0).per_prompt for s in won]
    assert np.abs(raw[0] - raw[1]).max() > 0.01  # the raw reward is another


def test_no_answer_calibrates_and_is_judged():
    scores = np.arange(57.0)[None].repeat(3, 0)
    split = Split.disjoint(scores, 25, 2, np.random.default_rng(8))
    for known, judged in zip(split.calibrating, split.judged, strict=True):
        assert not set(known) & set(judged)
        assert len({*known, *judged}) == 57


def test_other_scores_make_other_pieces(monkeypatch):
    """What is kept is asked for by the scores and the plan, so another judge measures anew."""
    asked = {}

    def seen(claim, name, settings, make):
        asked.setdefault(name, []).append(repr(settings))
        return []

    scores = np.random.default_rng(9).random((6, 5))
    made = AlpacaEval((), (), ("a", "b", "c", "d", "NullModel"), (), scores)
    monkeypatch.setattr(run, "piece", seen)
    for data in (made, made, dataclasses.replace(made, scores=scores[::-1])):
        monkeypatch.setattr(run, "alpaca_eval", lambda null_model=True, data=data: data)
        run._full(run.Plan(), seed=0)
    for name in ("answers", "with NullModel"):
        first, again, other = asked[name]
        assert first == again != other


def test_the_result_is_shown(tmp_path, found):
    result = {"made": found}
    lines = shown.rows(result)
    assert lines[0].holds
    shown.draw(result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "uniform.png",
        "rollouts.png",
        "plain.png",
    }
