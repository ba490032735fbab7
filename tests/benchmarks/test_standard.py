"""The ordinary win rate, on a made world: calibration is ahead of raw reward, and on its limit."""

import json

import pytest

pytest.importorskip("torch")

from benchmarks.frontier import cases
from benchmarks.standard import shown
from benchmarks.standard.run import main


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("benchmarks.arena.runs.FOLDER", tmp_path_factory.mktemp("bench"))
        yield main(["--smoke"])


def test_calibration_is_ahead_of_raw_reward_at_equal_kl(result):
    assert len(result["cases"]) == len(cases.SMOKE.kls)
    for case in result["cases"]:
        raw = case["methods"]["raw"]["training"]
        assert raw["ahead"] > 2 * raw["ahead_se"] > 0
        assert case["methods"]["identity"]["training"]["win"] == pytest.approx(
            case["ceiling"], abs=3e-3
        )  # for N = 1 the ceiling is the tilt by the quantile, ties half


def test_a_row_does_not_claim_what_is_not_seen(result):
    other = json.loads(json.dumps(result).replace('"made"', '"openings"'))
    assert [row.holds for row in shown.rows(other)][:2] == [True, True]
    for gap, se, holds in ((0.001, 0.01, None), (-0.1, 0.01, False)):
        for case in other["cases"]:
            for judge in ("training", "gold"):
                case["methods"]["raw"][judge] |= {"ahead": gap, "ahead_se": se}
        assert [row.holds for row in shown.rows(other)] == [holds] * 3


def test_the_figure_is_made_from_the_result_alone(result, tmp_path):
    shown.draw(json.loads(json.dumps(result).replace('"made"', '"answers"')), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"standard.png", "tables.md"}
