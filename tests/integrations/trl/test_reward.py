"""What TRL's trainers receive are the bits of the house's own training reward."""

import inspect
import pickle

import numpy as np
import pytest
from datasets import Dataset
from small import PROMPTS, Vowels

from infalign.integrations.frozen import FrozenReward
from infalign.integrations.trl import (
    CalibratedReward,
    grpo_config,
    hold_to_law,
    prompts_for_trl,
    rloo_config,
)

OPTIONS = {
    "max_steps": 2,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "learning_rate": 1e-3,
}


class Recording:
    """Keeps what TRL passed and what it got back."""

    __name__ = "recording"

    def __init__(self, reward):
        self.reward, self.calls = reward, []

    def __call__(self, prompts, completions, **passed):
        returned = self.reward(prompts, completions, **passed)
        self.calls.append((prompts, completions, passed, returned))
        return returned


@pytest.fixture
def trained(bench, frozen_of, tmp_path):
    """Two steps of a trainer as a user would set it up; returns what passed by, and the bench."""

    def run(trainer, prompts=None, **options):
        import trl

        one = bench()
        frozen = FrozenReward.load(frozen_of(one), Vowels())
        reward = Recording(CalibratedReward(frozen))
        make, kind = {
            "rloo": (rloo_config, trl.RLOOTrainer),
            "grpo": (grpo_config, trl.GRPOTrainer),
        }[trainer]
        hold_to_law(one.policy.module.get_base_model(), one.policy.tokenizer, frozen)
        texts = prompts or prompts_for_trl(PROMPTS, one.policy.tokenizer)
        made = kind(
            model=one.policy.module,
            reward_funcs=reward,
            args=make(frozen, output_dir=str(tmp_path / "out"), **OPTIONS | options),
            train_dataset=Dataset.from_dict({"prompt": texts, "prompt_id": one.problem.ids}),
            processing_class=one.policy.tokenizer,
        )
        made.train()
        return one, reward.calls, made

    return run


CHAT = [[{"role": "user", "content": prompt.text}] for prompt in PROMPTS]


@pytest.mark.filterwarnings("ignore:GRPO charges")
@pytest.mark.parametrize(
    ("trainer", "prompts"), [("rloo", None), ("grpo", None), ("rloo", CHAT)], ids=str
)
def test_rewards_inside_a_trainer_are_bit_for_bit_those_of_the_house(trained, trainer, prompts):
    one, calls, _ = trained(trainer, prompts)
    assert len(calls) == 2
    for _, completions, passed, returned in calls:
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        texts = [made_text.partition('"')[0] for made_text in texts]
        for prompt_id, text, value in zip(passed["prompt_id"], texts, returned, strict=True):
            (prompt,) = [p for p in PROMPTS if p.id == prompt_id]
            ours = one.problem.rewards([prompt_id], [prompt.text], [[text]])
            assert value == ours[0, 0]
    assert len({value for call in calls for value in call[3]}) > 4, "rewards that differ"


def test_what_trl_passes_to_a_reward_is_what_this_was_written_for(trained):
    """The canary: where a later TRL breaks the contract, this says which part."""
    _, calls, _ = trained("rloo")
    prompts, completions, passed, returned = calls[0]
    assert len(prompts) == len(completions) == len(returned) == 8
    assert all(isinstance(text, str) for text in (*prompts, *completions))
    assert {"completion_ids", "prompt_id", "trainer_state", "log_extra", "log_metric"} <= set(
        passed
    )
    assert [len(set(passed["prompt_id"][i : i + 4])) for i in (0, 4)] == [1, 1]
    assert all(isinstance(i, int) for ids in passed["completion_ids"] for i in ids)
    assert list(inspect.signature(passed["log_extra"]).parameters) == ["column", "values"]
    assert list(inspect.signature(passed["log_metric"]).parameters) == ["name", "value"]


@pytest.mark.filterwarnings("ignore:GRPO charges")
def test_reward_quantile_and_training_reward_are_logged(trained, tmp_path):
    import pandas as pd

    _, calls, made = trained("grpo", log_completions=True)
    history = [entry for entry in made.state.log_history if "kl" in entry]
    for step, entry in enumerate(history):
        mean = float(np.mean(calls[step][3]))
        assert entry["calibrated/training_reward"] == pytest.approx(mean, rel=1e-6)
        assert entry["rewards/recording/mean"] == pytest.approx(mean, rel=1e-6)
        assert 0 <= entry["calibrated/quantile"] <= 1
        assert "calibrated/reward" in entry
    (table, *_) = sorted((tmp_path / "out" / "completions").glob("*.parquet"))
    columns = pd.read_parquet(table)
    assert columns["training_reward"].tolist() == calls[0][3]
    assert {"raw_reward", "quantile"} <= set(columns)


def test_the_name_in_logs_pickles_and_both_formats(bench, frozen_of):
    reward = CalibratedReward(frozen_of(bench()), Vowels())
    assert reward.__name__ == "calibrated_reward"
    ids, texts = [PROMPTS[0].id] * 2, ["a story", "xyz"]
    plain = reward(["?"] * 2, texts, prompt_id=ids)
    chat = reward(["?"] * 2, [[{"role": "assistant", "content": t}] for t in texts], prompt_id=ids)
    assert plain == chat == pickle.loads(pickle.dumps(reward))(["?"] * 2, texts, prompt_id=ids)
    assert all(type(value) is float for value in plain)
    assert plain[0] > plain[1]


def test_a_stop_string_is_cut_as_the_house_cuts_it(bench, frozen_of):
    reward = CalibratedReward(frozen_of(bench()), Vowels())
    ids = [PROMPTS[0].id] * 2
    whole, cut = reward(["?"] * 2, ['a lush" film', "a lush"], prompt_id=ids)
    assert whole == cut


def test_refusals_name_what_is_missing(bench, frozen_of, tmp_path):
    folder = frozen_of(bench())
    reward = CalibratedReward(folder, Vowels())
    with pytest.raises(ValueError, match=r"no column prompt_id \(TRL passed \['id'\]\)"):
        reward(["?"], ["a"], id=["1"])
    with pytest.raises(ValueError, match="'nobody' has no reference rewards"):
        reward(["?"], ["a"], prompt_id=["nobody"])
    with pytest.raises(ValueError, match="one assistant message"):
        reward(["?"], [[{"role": "assistant", "content": "a"}] * 2], prompt_id=[PROMPTS[0].id])
    with pytest.raises(ValueError, match="give the folder here"):
        CalibratedReward(FrozenReward.load(folder), Vowels())
    with pytest.raises(ValueError, match="one ASCII character"):
        CalibratedReward(frozen_of(bench(stop=("ab",)), "long"))
    with pytest.raises(FileNotFoundError, match="no frozen reward"):
        CalibratedReward(tmp_path / "nowhere")


def test_the_dotted_path_for_the_command_line_fails_at_once_and_loudly(
    bench, frozen_of, monkeypatch, tmp_path
):
    from infalign.integrations import trl as ours

    monkeypatch.delenv("INFALIGN_FROZEN", raising=False)
    with pytest.raises(ValueError, match="INFALIGN_FROZEN is not set"):
        _ = ours.training_reward
    monkeypatch.setenv("INFALIGN_FROZEN", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError):
        _ = ours.training_reward
    monkeypatch.setenv("INFALIGN_FROZEN", str(frozen_of(bench())))
    with pytest.raises(ValueError, match="by its name alone"):
        _ = ours.training_reward
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ours.nonsense
