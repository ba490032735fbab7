"""Experiments whose procedure ranks do not tell: trained, measured, reported, nothing claimed."""

import json

import numpy as np
import pytest

from infalign import pipeline
from infalign.pipeline import decoded, stages
from infalign.report import load_report

DECODED = {
    "kind": "online_decoded",
    "beta": 0.1,
    "steps": 2,
    "learning_rate": 1e-2,
    "checkpoint_every": 1,
    "samples_per_prompt": 6,
    "replays": 8,
    "runs": 2,
    "opponents": 4,
}
PROCEDURES = {
    "best": {"kind": "best_of_n", "n": 2},
    "soft": {"kind": "soft_best_of_n", "n": 2, "temperature": 0.2},
    "vote": {"kind": "majority_vote", "n": 2},
    "blocks": {"kind": "blockwise_best_of_n", "n": 2, "block": 2},
    "chain": {"kind": "mcmc", "steps": 2, "beta": 0.1},
    "calibrated chain": {"kind": "mcmc", "steps": 2, "beta": 0.3, "transform": "log"},
}


@pytest.fixture
def text_experiment(experiment):
    """Makes experiments with a procedure on text, by a short name."""

    def make(name, **changes):
        given = {
            "procedure": PROCEDURES[name],
            "training": DECODED,
            "evaluate": {"samples": 8, "ns": [1, 2], "checkpoints": 1, "repeats": 2},
        }
        return experiment(**(given | changes))

    return make


def test_a_run_ends_in_a_report_that_predicts_nothing(text_experiment):
    one = text_experiment("chain")
    page = pipeline.run(one)
    (act,) = load_report(page.with_name("report.json")).acts
    assert act.ideal == ()
    assert act.plan == {}
    for frontier in act.frontiers:
        assert frontier.limit is None
        assert frontier.predictions == ()
        assert {measured.policy for measured in frontier.measured} == {"InfAlign", "raw reward"}
        for measured in frontier.measured:
            assert 0 <= measured.checkpoints[-1].win_rate.value <= 1
    assert act.procedure in {c.procedure for c in act.comparisons}
    assert {c.judge for c in act.comparisons} == {"vowels", "length"}
    assert len(act.answers) == 4
    assert "No theory predicts" in page.read_text()


@pytest.fixture
def trained(text_experiment):
    """Makes studies with the treatment trained, in this process."""

    def make(name):
        study = pipeline.open_study(text_experiment(name, baselines=[]))
        pipeline.reward(study)
        stages.train_policy(study, "infalign")
        return study

    return make


def test_what_was_decoded_is_kept_and_not_decoded_again(trained, monkeypatch):
    study = trained("chain")
    before = study.measure("infalign", 2, last=True)
    path = study.folder / "judged" / "reference-held-out-decoded.json"
    assert np.shape(json.loads(path.read_text())["texts"]) == (4, 2)
    monkeypatch.setattr(decoded, "answer_repeatedly", None)
    again = study.measure("infalign", 2, last=True)
    for key, values in before.wins.items():
        np.testing.assert_array_equal(values, again.wins[key])


@pytest.mark.parametrize("name", ["best", "soft", "vote", "blocks", "calibrated chain"])
def test_policies_are_trained_measured_and_decoded_by(trained, name):
    study = trained(name)
    rows = stages.read_rows(study, "infalign")
    assert {"kl", "win_rate", "reward"} <= rows[-1].keys()
    measured = study.measure("infalign", 2, last=True)
    for judge in ("vowels", "length"):
        wins = measured.wins["held-out", judge, study.procedure_label]
        assert wins.shape == (4,)
        assert ((wins >= 0) & (wins <= 1)).all()
    found = pipeline.decode(study, "infalign")
    assert len(found) == 4
    assert all(answer.text == answer.candidates[answer.index].text for answer in found)
    assert len(study.answers(["infalign"], {"infalign": 2})) == 4


def test_a_theory_of_soft_choices_is_shown(text_experiment):
    study = pipeline.make_study(text_experiment("soft"))
    assert study.theory is not None
    (identity, *_) = study.predictions([0.0, 0.5])
    assert identity.win_rates[0] == pytest.approx(0.5)
    assert identity.win_rates[1] > 0.6
    assert study.ideal(0.5) == ()
    assert pipeline.make_study(text_experiment("vote")).theory is None


def test_baselines_are_trained_towards_one_kl(text_experiment):
    study = pipeline.open_study(text_experiment("vote", baselines=["raw", "calibrated"]))
    pipeline.reward(study)
    treatment, bare, raw = (study.problem(name) for name in ("infalign", "calibrated", "raw"))
    assert treatment.beta == bare.beta == 0.1
    kls = []
    for one in (bare, raw):
        masses, phi = one.rewards.atoms(one.ids)
        law = masses * np.exp(
            phi / one.beta - one.rewards.log_partition(one.beta, one.ids)[:, None]
        )
        kls.append((law * np.log(law / masses)).sum(1).mean())
    np.testing.assert_allclose(*kls, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"kind": "online", "kl": 0.5}}, "no transform is known.*online_decoded"),
        ({"training": DECODED | {"samples_per_prompt": 2}}, "samples_per_prompt is 2.*more"),
        ({"training": {"kind": "online_decoded", "kl": 0.5}}, "kl is 0.5.*win rate per nat"),
        ({"training": DECODED | {"runs": 1}}, "runs is 1; at least 2"),
        ({"transform": {"kind": "log"}}, "transform is log.*leave it out"),
        ({"policy": {"kind": "choice_lm"}}, "policy is choice_lm"),
        ({"procedure": {"kind": "mcmc"}}, "procedure.beta: missing"),
        ({"procedure": {"kind": "mcmc", "beta": 0}}, "beta is 0.*> 0"),
        (
            {"procedure": {"kind": "majority_vote", "n": True}},
            "procedure.n: True found; a whole number",
        ),
        ({"procedure": {"kind": "soft_best_of_n", "n": 5}}, "twice as many"),
        ({"procedure": {"kind": "majority_vote", "n": 9}}, "evaluate.samples is 8"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(text_experiment, changes, message):
    with pytest.raises(ValueError, match=message):
        text_experiment("vote", **changes)


def test_an_unknown_way_to_read_an_answer_is_refused(text_experiment):
    said = {"kind": "majority_vote", "n": 2, "extract": "nmber"}
    with pytest.raises(ValueError, match=r"procedure\.extract: 'nmber' is not known"):
        text_experiment("vote", procedure=said)


def test_what_has_no_transform_cannot_be_exported(text_experiment, tmp_path):
    study = pipeline.open_study(text_experiment("vote"))
    with pytest.raises(ValueError, match="no transform"):
        pipeline.export(study, "verl", tmp_path / "out")
