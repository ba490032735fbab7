"""`engine: trl` in an experiment file: from prompts to the report, or refused before long work."""

import json

import pytest

from infalign import pipeline
from infalign.integrations.trl import solver as solver_module
from infalign.report import load_report

pytest.importorskip("trl")

TRL = {
    "kind": "online",
    "engine": "trl",
    "kl": 0.5,
    "steps": 4,
    "learning_rate": 3e-3,
    "samples_per_prompt": 4,
    "checkpoint_every": 2,
}


def test_a_run_with_trl_ends_in_a_report(experiment):
    settings = {"training": TRL, "policy": {"stop": ["e"]}, "baselines": [], "transform": "log"}
    page = pipeline.run(experiment(**settings, evaluate={"checkpoints": 1}))
    (act,) = load_report(page.with_name("report.json")).acts
    for frontier in act.frontiers:
        assert {measured.policy for measured in frontier.measured} == {"InfAlign"}
    home = page.parent / "train" / "infalign"
    rows = json.loads((home / "trl.json").read_text())
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["kl"] > 0
    weights = sorted(path.name for path in (home / "trl").glob("*.pt"))
    assert weights == ["weights-000002.pt", "weights-000004.pt"]
    assert (home / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training": TRL | {"divergence": "rao_blackwell"}}, "engine is trl, whose trainers"),
        ({"training": TRL | {"engine": "builtin", "trainer": "grpo"}}, "engine is builtin"),
        (
            {"policy": {"kind": "choice_lm", "candidates": 8}, "training": TRL},
            "policy is choice_lm",
        ),
        ({"training": TRL | {"engine": "verl"}}, "trl"),
    ],
)
def test_what_cannot_be_is_refused_as_the_file_is_read(experiment, changes, says):
    with pytest.raises(ValueError, match=says):
        experiment(**changes)


def test_without_the_library_it_is_refused_before_anything_is_sampled(experiment, monkeypatch):
    monkeypatch.setattr(solver_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="infalign"):
        pipeline.open_study(experiment(training=TRL))
