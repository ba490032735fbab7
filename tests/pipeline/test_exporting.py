"""What is frozen of a study is what the study trains on."""

import dataclasses
import json
import runpy

import numpy as np
import pytest
import yaml

from infalign.integrations.frozen import FrozenReward
from infalign.pipeline import open_study, reward
from infalign.pipeline.exporting import export, frozen_reward


@pytest.fixture
def study(experiment):
    study = open_study(experiment())
    reward(study)
    return study


def test_a_study_and_its_frozen_reward_agree_on_new_responses(study, tmp_path):
    frozen = FrozenReward.load(frozen_reward(study, tmp_path / "frozen"))
    prompts = study.prompts["train"]
    responses = study.policy.sample([p.text for p in prompts], 6, np.random.default_rng(7))
    problem = study.problem("infalign")
    texts = [[response.text for response in row] for row in responses]
    ours = problem.rewards.score(problem.ids, problem.texts, texts)
    ids = [prompt.id for prompt in prompts for _ in range(6)]
    flat = [text for row in texts for text in row]
    found = frozen.score(ids, flat)
    assert found.training_rewards.tobytes() == ours.training_rewards.tobytes()
    assert len(set(found.training_rewards)) > 5, "a comparison of constants shows nothing"
    assert (frozen.beta, frozen.k) == (problem.beta, 16)


def test_completions_with_their_special_tokens_read_as_the_study_reads_them(study, tmp_path):
    frozen = FrozenReward.load(frozen_reward(study, tmp_path / "frozen"))
    tokenizer, codec = study.policy.tokenizer, study.policy.codec
    assert codec.end_marks
    prompts = [prompt.text for prompt in study.prompts["train"]]
    for row in study.policy.sample(prompts, 20, np.random.default_rng(1)):
        for response in row:
            raw = tokenizer.decode(list(response.token_ids), skip_special_tokens=False)
            assert frozen.text_of(raw) == response.text
            assert frozen.text_of(raw + codec.end_marks[0] * 3) == response.text


@pytest.mark.parametrize("engine", ["verl", "openrlhf"])
def test_an_export_moves_as_a_whole_and_scores_as_the_study_does(study, engine, tmp_path):
    script = export(study, engine, tmp_path / "made", prompts_per_step=5)
    assert script == export(study, engine, tmp_path / "made", prompts_per_step=5)
    moved = tmp_path / "elsewhere"
    script.parent.parent.rename(moved)
    found = runpy.run_path(str(moved / engine / "reward.py"))
    prompt = study.prompts["train"][0]
    end = study.policy.codec.end_marks[0]
    if engine == "verl":
        phi = found["compute_score"]("x", "film", "", {"prompt_id": prompt.id})["score"]
    else:
        context = study.policy.codec.context_text(prompt.text)
        phi = found["reward_func"]([f"{context}film{end}"], [context], [prompt.id])[
            "rewards"
        ].item()
    assert phi == study.problem("infalign").rewards([prompt.id], [prompt.text], [["film"]])[0, 0]
    assert str(study.policy.source) in (moved / engine / script.name).read_text()


def test_listed_responses_are_not_exported(experiment, tmp_path):
    policy = {"kind": "choice_lm", "model": "model", "candidates": 8, "dtype": "float32"}
    study = open_study(experiment(policy=policy, training={"kind": "exact", "kl": 0.5}))
    with pytest.raises(ValueError, match=r"policy is choice_lm, .* Set `policy: causal_lm`"):
        export(study, "verl", tmp_path / "x")


def test_trl_is_given_a_file_that_its_own_configuration_takes(study, tmp_path):
    trl = pytest.importorskip("trl")
    file = export(study, "trl", tmp_path / "made", prompts_per_step=5, samples=4, epochs=3)
    written = yaml.safe_load(file.read_text())
    known = {field.name for field in dataclasses.fields(trl.RLOOConfig)}
    config = trl.RLOOConfig(**{k: v for k, v in written.items() if k in known}, use_cpu=True)
    assert (config.beta, config.num_generations) == (study.problem("infalign").beta, 4)
    rows = (file.parent / "train.jsonl").read_text().splitlines()
    assert [json.loads(row)["prompt_id"] for row in rows] == study.ids


@pytest.mark.parametrize(
    ("changes", "asked", "says"),
    [
        ({}, {"prompts_per_step": 99}, "99 prompts per update of 5 prompts"),
        ({"policy": {"stop": ["end"]}}, {}, "stop at 'end'"),
        ({}, {"samples": 1}, "samples is 1"),
    ],
)
def test_what_can_be_seen_at_once_is_refused_before_anything_is_sampled(
    experiment, tmp_path, changes, asked, says
):
    study = open_study(experiment(**changes))
    with pytest.raises(ValueError, match=says):
        export(study, "verl", tmp_path / "x", **asked)
    assert not (study.folder / "rollouts").exists()
