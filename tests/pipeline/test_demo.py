"""The demo on the real embedded model, too small to show anything but that it works."""

import pytest

from infalign.pipeline import demo
from infalign.pipeline.demo import ACTS, demo_experiment
from infalign.report import load_report


def test_the_demo_s_experiments_are_valid_and_differ_from_their_smoke_only_in_size(tmp_path):
    for act in ACTS:
        full, small = (demo_experiment(act, tmp_path, smoke=smoke) for smoke in (False, True))
        assert full.training.kind == small.training.kind
        assert full.procedure == small.procedure
        assert full.transform == small.transform
        assert full.gold is not None


@pytest.mark.slow
def test_the_demo_tells_both_acts_on_a_real_model(tmp_path):
    page = demo(tmp_path, smoke=True)
    one, two = load_report(page.with_name("report.json")).acts
    for act in (one, two):
        assert {row.transform for row in act.ideal} >= {"raw", "identity", "log", "optimal"}
        for frontier in act.frontiers:
            assert {m.policy for m in frontier.measured} == {
                "InfAlign",
                "calibrated only",
                "raw reward",
            }
        assert {c.judge for c in act.comparisons} >= {"film-rating", "gold", "vader"}
        assert act.answers, "answers are shown side by side"
