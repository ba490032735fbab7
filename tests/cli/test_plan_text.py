"""Experiments whose procedure is one on text: planned where there is a theory, else refused."""

import json

import pytest

from infalign.planner import plan
from infalign.quantile.procedures import SoftBestOfN

TRAINING = "training: {kind: online_decoded, beta: 0.1}"
UNTOLD = {
    "majority_vote": "{kind: majority_vote, n: 4}",
    "blockwise_best_of_n": "{kind: blockwise_best_of_n, n: 4, block: 2}",
    "mcmc": "{kind: mcmc, beta: 0.5, steps: 4}",
}


@pytest.fixture
def experiment(tmp_path):
    """Makes the file of an experiment with this procedure."""

    def make(procedure):
        path = tmp_path / "experiment.yaml"
        path.write_text(f"procedure: {procedure}\n{TRAINING}\n")
        return str(path)

    return make


@pytest.mark.parametrize("question", [[], ["--power"], ["--rollouts", "16"], ["--gold"]])
@pytest.mark.parametrize("kind", UNTOLD)
def test_what_no_theory_tells_cannot_be_planned(kind, question, experiment, infalign_command):
    """Before: "Unknown procedure 'majority_vote'"."""
    given = [*question, "--agreement", "0.6"] if question == ["--gold"] else question
    code, out, err = infalign_command("plan", experiment(UNTOLD[kind]), *given)
    err = " ".join(err.split())
    assert (code, out) == (2, "")
    assert f"procedure {kind}: the ranks of whole responses do not tell what it wins" in err
    assert "online_decoded" in err
    assert "Unknown" not in err


@pytest.mark.parametrize(
    "named",
    [
        ["-p", "majority_vote"],
        ["-p", "majority-vote(16, extract=last_number)"],
        ["-p", "blockwise_best_of_4"],
        ["-p", "qalign(0.5)"],
        ["-p", "mcmc", "--mismatch"],
        ["-p", "best_of_4", "--reference", "majority_vote(4)"],
    ],
)
def test_nor_by_name(named, infalign_command):
    code, _, err = infalign_command("plan", *named)
    assert code == 2
    assert "do not tell what it wins" in " ".join(err.split())


def test_a_soft_choice_is_planned(experiment, infalign_command):
    path = experiment("{kind: soft_best_of_n, n: 4, temperature: 0.1}")
    code, out, err = infalign_command("plan", path, "--json")
    assert (code, err) == (0, "")
    (table,) = json.loads(out)
    procedure = SoftBestOfN(4, 0.1)
    assert table["procedure"] == procedure.name
    expected = plan(procedure, table["kl"])
    assert table["transforms"][-1]["beta"] == pytest.approx(0.1, rel=1e-3), "the file's"
    for row, there in zip(table["transforms"], expected, strict=True):
        assert row["decoded_win_rate"] == pytest.approx(there.decoded_win_rate)


@pytest.mark.parametrize("question", [["--rollouts", "16"], ["--html", "plan.html"]])
def test_further_questions_about_a_soft_choice_are_answered(
    question, experiment, infalign_command, tmp_path, monkeypatch
):
    path = experiment("{kind: soft_best_of_n, n: 4, temperature: 0.1}")
    monkeypatch.chdir(tmp_path)
    code, out, err = infalign_command("plan", path, *question)
    assert code == 0, err
    assert out


def test_another_procedure_stands_in_for_one_that_cannot_be_planned(experiment, infalign_command):
    path = experiment(UNTOLD["majority_vote"])
    code, out, _ = infalign_command("plan", path, "-p", "best_of_4", "--json")
    assert code == 0
    assert json.loads(out)[0]["procedure"] == "best-of-4"
