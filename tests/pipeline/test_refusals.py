"""What cannot work is refused before long work starts, and nothing finished is lost."""

import pytest
import yaml

from infalign import pipeline


def callable_reward(function):
    return {"kind": "callable", "function": f"my_rewards:{function}"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": {"train": 50, "test": 4}}, "9 distinct prompts"),
        ({"prompts": {"path": "nowhere.jsonl"}}, "nowhere.jsonl"),
        ({"policy": {"max_new_tokens": 100}}, "context window"),
        ({"policy": {"model": "/no/such/model"}}, "/no/such/model"),
        ({"reward": callable_reward("short")}, "short"),
        ({"reward": callable_reward("broken")}, "KeyError"),
        ({"reward": callable_reward("nan")}, "finite"),
        ({"reward": callable_reward("missing")}, "missing"),
    ],
)
def test_a_study_that_cannot_work_is_refused_at_once(experiment, changes, says):
    one = experiment(**changes)
    with pytest.raises((ValueError, OSError), match=says):
        pipeline.open_study(one)


def test_results_of_another_experiment_are_not_touched(experiment):
    pipeline.open_study(experiment())
    with pytest.raises(ValueError, match="another experiment; it differs in policy"):
        pipeline.open_study(experiment(policy={"temperature": 0.5}))


def test_a_folder_made_before_a_key_existed_is_gone_on_with(experiment):
    """And one that said something else under that key is not."""
    study = pipeline.open_study(experiment())
    file = study.folder / "experiment.yaml"
    written = yaml.safe_load(file.read_text())
    assert written["training"].pop("processes") == 1
    file.write_text(yaml.safe_dump(written))
    pipeline.open_study(experiment())
    file.write_text(yaml.safe_dump(written | {"seed": 1}))
    with pytest.raises(ValueError, match="another experiment; it differs in seed"):
        pipeline.open_study(experiment())


def test_results_of_other_prompts_are_not_mixed_with_those_of_a_changed_file(
    experiment, workshop, tmp_path
):
    path = tmp_path / "prompts.jsonl"
    path.write_text((workshop / "prompts.jsonl").read_text())
    one = experiment(prompts={"path": str(path)})
    pipeline.open_study(one)
    pipeline.open_study(one)
    path.write_text(path.read_text().replace("tender", "tough"))
    with pytest.raises(ValueError, match="has changed since"):
        pipeline.open_study(one)


def test_two_rewards_of_one_name_are_refused(experiment):
    with pytest.raises(ValueError, match="a `name` of its own"):
        pipeline.open_study(experiment(gold=callable_reward("length") | {"name": "vowels"}))


def test_an_output_folder_that_cannot_be_made_is_named(experiment, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="output folder"):
        pipeline.open_study(experiment(output=str(tmp_path / "file" / "run")))


def test_only_policies_of_the_experiment_can_be_trained(experiment):
    study = pipeline.open_study(experiment())
    with pytest.raises(ValueError, match="no policy is named 'calibrated'"):
        pipeline.train(study, ["calibrated"])


def test_decoding_answers_every_held_out_prompt(experiment):
    study = pipeline.open_study(experiment())
    decoded = pipeline.decode(study, "reference")
    assert [one.prompt_id for one in decoded] == [p.id for p in study.prompts["held-out"]]
    assert all(len(one.candidates) == 4 for one in decoded)


def test_a_reward_that_tells_nothing_apart_is_refused_before_training(experiment):
    study = pipeline.open_study(experiment(reward=callable_reward("constant")))
    with pytest.raises(ValueError, match="'constant' gives all responses to a prompt the same"):
        pipeline.reward(study)


def test_a_refused_experiment_leaves_the_folder_free_for_the_corrected_one(experiment):
    with pytest.raises(FileNotFoundError):
        pipeline.open_study(experiment(prompts={"path": "nowhere.jsonl"}))
    pipeline.open_study(experiment())


def test_a_changed_reward_function_is_noted(experiment, workshop, monkeypatch):
    import importlib
    import sys

    said = []

    class Listener(pipeline.Silent):
        def say(self, text):
            said.append(text)

    pipeline.open_study(experiment(), Listener())
    assert said == []
    module = workshop / "my_rewards.py"
    old = module.read_text()
    try:
        module.write_text(old + "\n# another version\n")
        sys.modules.pop("my_rewards")
        importlib.invalidate_caches()
        pipeline.open_study(experiment(), Listener())
    finally:
        module.write_text(old)
    assert any("'vowels' has changed" in text for text in said)
