"""Contenders of the cost benchmark take the same step; ratios are per token and within turns."""

import numpy as np
import pytest

pytest.importorskip("trl")

from benchmarks.cost import run, shown


@pytest.fixture(scope="module")
def smoke():
    return run.main(["--smoke"])["cases"]["tiny"]


def test_all_train_on_the_same_tokens(smoke):
    assert len({tuple(counts) for counts in smoke["tokens"].values()}) == 1
    assert smoke["tokens"]["online"][0] > 0


def test_our_step_on_given_answers_is_that_of_rloo_in_trl(smoke):
    """Its gradient is β times ours, because its loss is in the reward's unit and ours in nats."""
    agreement = smoke["gradients"]["trl-rloo and online"]
    assert agreement["cosine"] == pytest.approx(1, abs=1e-5)
    assert agreement["norms"] == pytest.approx(smoke["beta"], rel=1e-4)


def test_our_step_on_pairs_is_that_of_dpo_in_trl(smoke):
    agreement = smoke["gradients"]["trl-dpo and dpo"]
    assert agreement["cosine"] == pytest.approx(1, abs=1e-5)
    assert agreement["norms"] == pytest.approx(1, rel=1e-4)


def test_another_loss_on_the_same_tokens_is_told_apart(smoke):
    agreement = smoke["gradients"]["online and dpo"]
    assert agreement["cosine"] < 0.95
    assert agreement["norms"] != pytest.approx(1, rel=0.1)


def facts(seconds, tokens, rise):
    steps = [(one, tokens) for one in seconds]
    return {"steps": steps, "loaded_mb": 100.0, "peak_mb": 100.0 + rise, "load": 1.0}


def test_a_ratio_is_per_token_and_within_turns():
    """The second turn is ten times as slow for both, so that ratios of medians would say 2.2."""
    other, own = facts([2.0, 20.0, 2.4], 100, 60.0), facts([1.0, 10.0, 1.0], 100, 30.0)
    found = run._ratio(other, own)
    assert (found["time"], found["least"], found["most"]) == (2.0, 2.0, 2.4)
    assert found["memory"] == 2.0
    twice_the_tokens = facts([2.0, 20.0, 2.4], 200, 60.0)
    assert run._ratio(twice_the_tokens, own)["time"] == 1.0


def test_only_contenders_that_took_turns_with_each_other_are_compared():
    case, gradient = run.CASES[0], {"gradient": np.ones(3)}
    made = {
        "online": facts([1.0], 10, 30.0) | gradient,
        "trl-rloo": facts([3.0], 10, 60.0) | gradient,
    }
    other = {"dpo": facts([1.0], 10, 30.0) | gradient}
    found = run._case(case, {case.name: [made, other]})
    assert found["ratios"]["trl-rloo / online"]["time"] == 3.0
    assert not any("dpo" in ratio for ratio in found["ratios"])
    assert set(found["contenders"]) == {"online", "trl-rloo", "dpo"}
    assert found["gradients"]["trl-rloo and online"]["cosine"] == pytest.approx(1)


def result(least):
    ratio = {"time": 1.1, "least": least, "most": 1.2, "turns": 3, "memory": 0.9}
    contender = run._contender([facts([2.0, 2.0], 100, 60.0)])
    case = {"prompts": 1, "prompt_tokens": 9, "k": 4, "cap": 8, "dtype": "float32"}
    names = ("online", "trl-rloo", "dpo")
    found = {"case": case, "contenders": dict.fromkeys(names, contender)}
    return {"cases": {"made": found | {"ratios": {"trl-rloo / online": ratio}}}}


def test_a_turn_in_which_we_were_slower_is_a_negative_result():
    (held,), (failed,) = shown.rows(result(1.05)), shown.rows(result(0.95))
    assert held.holds is True
    assert failed.holds is False
    assert "1.1 ×" in held.number
    assert "20 ms per token" in held.instead


def test_the_figure_is_drawn_from_the_result_alone(tmp_path):
    shown.draw(result(1.0), tmp_path)
    assert (tmp_path / "cost.png").stat().st_size < 150_000
