"""What is frozen of a study is what the study trains on."""

import numpy as np
import pytest

from infalign.integrations.frozen import FrozenReward
from infalign.pipeline import open_study, reward
from infalign.pipeline.exporting import frozen_reward


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
