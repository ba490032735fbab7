import json

import pytest

CHAIN = ["open_study", "rollout", "reward", "calibrate", "evaluate", "report"]


def test_run_goes_through_the_stages_and_ends_with_the_path_of_the_report(
    infalign_command, pipeline, experiment_file
):
    code, out, err = infalign_command("run", str(experiment_file))
    assert [call[0] for call in pipeline.calls] == CHAIN
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(experiment_file.parent / "out" / "report.html")


@pytest.mark.parametrize("verb", ["rollout", "reward", "calibrate", "train", "evaluate", "report"])
def test_a_verb_is_its_stage(verb, infalign_command, pipeline, experiment_file):
    code, _, _ = infalign_command(verb, str(experiment_file))
    assert code == 0
    assert [call[0] for call in pipeline.calls] == ["open_study", verb]


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_policies_can_be_chosen(verb, infalign_command, pipeline, experiment_file):
    infalign_command(verb, str(experiment_file), "--policy", "infalign", "-p", "raw")
    assert pipeline.calls[-1] == (verb, ["infalign", "raw"])
    infalign_command(verb, str(experiment_file))
    assert pipeline.calls[-1] == (verb, None)


def test_decode_prints_one_json_object_per_prompt(infalign_command, pipeline, experiment_file):
    code, out, _ = infalign_command("decode", str(experiment_file), "--policy", "reference")
    assert (code, pipeline.calls[-1]) == (0, ("decode", "reference"))
    (record,) = map(json.loads, out.splitlines())
    assert (record["prompt"], record["answer"]) == ("Say something.", "No.")
    assert record["reward"] == record["rewards"][1] == 0.75
    assert "«thanks»" in out


def test_values_are_set_and_the_output_is_moved(
    infalign_command, pipeline, experiment_file, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    arguments = ("--set", "training.kind=online", "--set", "training.kl=0.25", "--set",
                 "procedure=worst_of_n", "--output", str(elsewhere))  # fmt: skip
    code, _, _ = infalign_command("rollout", str(experiment_file), *arguments)
    experiment = pipeline.study.experiment
    assert code == 0
    assert (experiment.training.kl, experiment.procedure.kind) == (0.25, "worst_of_n")
    assert experiment.output == str(elsewhere)


def test_a_wrong_value_is_refused_as_the_file_would_be(infalign_command, pipeline, experiment_file):
    code, out, err = infalign_command("run", str(experiment_file), "--set", "rollouts.kk=4")
    assert (code, out, pipeline.calls) == (2, "", [])
    assert "--set rollouts.kk=4: rollouts.kk: unknown; did you mean 'k'?" in err


def test_a_missing_file_says_what_is_there(infalign_command, pipeline, experiment_file):
    missing = experiment_file.parent / "experimnt.yaml"
    code, _, err = infalign_command("run", str(missing))
    assert (code, pipeline.calls) == (2, [])
    assert "no experiment file" in err
    assert "there is experiment.yaml" in err


def test_a_missing_file_in_an_empty_folder_says_how_to_get_one(infalign_command, tmp_path):
    code, _, err = infalign_command("run", str(tmp_path / "mine.yaml"))
    assert code == 2
    assert "infalign init" in err


def test_the_demo_is_asked_for_with_its_settings(infalign_command, pipeline, tmp_path):
    arguments = ("--output", str(tmp_path), "--seed", "3", "--act", "one", "--smoke")
    code, out, err = infalign_command("demo", *arguments)
    _, output, settings = pipeline.calls[-1]
    assert (code, output) == (0, tmp_path)
    assert settings == {"seed": 3, "acts": ("one",), "smoke": True}
    assert out == f"{tmp_path / 'report.html'}\n"
    assert err == "working\n"


def test_the_demo_knows_its_acts(infalign_command, pipeline):
    code, _, err = infalign_command("demo", "--act", "three")
    assert (code, pipeline.calls) == (2, [])
    assert "--act three" in err
