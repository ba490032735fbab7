"""The exported YAML trains with TRL's own command line, on this reward, with nothing added."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from small import PROMPTS

from infalign.integrations.engine_files import Batches
from infalign.integrations.trl import grpo_config, rloo_config, write_trl

BATCHES = Batches(prompts=2, samples=4)
REWARD = """
def vowels(prompts, responses):
    return [[sum(c in "aeiou" for c in text) / (1 + len(text)) for text in r] for r in responses]
"""
SECTION = {"kind": "callable", "function": "my_vowels:vowels", "name": "vowels"}


@pytest.fixture
def stored(bench, frozen_of, tmp_path):
    """A bench's frozen reward beside its model on disk; returns both folders."""

    def write(**settings):
        one = bench(**settings)
        model = tmp_path / "weights"
        one.policy.module.unload().save_pretrained(model)
        one.policy.tokenizer.save_pretrained(model)
        return frozen_of(one, section=SECTION), model

    return write


def test_the_exported_yaml_trains_with_the_command_line_of_trl(stored, tmp_path):
    frozen, model = stored(stop=("e",))
    (tmp_path / "my_vowels.py").write_text(REWARD)
    folder = write_trl(frozen, PROMPTS, tmp_path / "trl", model=str(model), batches=BATCHES)
    quick = ["--use_cpu", "true", "--bf16", "false", "--max_steps", "2", "--save_steps", "2"]
    command = [sys.executable, "-m", "trl.cli.main", "rloo", "--config", str(folder / "rloo.yaml")]
    environment = {k: v for k, v in os.environ.items() if k != "INFALIGN_FROZEN"}
    run = subprocess.run(
        [*command, *quick],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    state = folder / "output" / "checkpoint-2" / "trainer_state.json"
    history = json.loads(state.read_text())["log_history"]
    assert [entry["step"] for entry in history[:2]] == [1, 2]
    for entry in history[:2]:
        assert entry["calibrated/training_reward"] == pytest.approx(entry["reward"], rel=1e-5)
        assert 0 <= entry["calibrated/quantile"] <= 1
    assert history[0]["kl"] == pytest.approx(0, abs=1e-5)
    lengths = [entry["completions/clipped_ratio"] for entry in history[:2]]
    assert min(lengths) < 1, "some responses ended at the stop string"


@pytest.mark.filterwarnings("ignore:GRPO charges")
@pytest.mark.parametrize(("trainer", "make"), [("rloo", rloo_config), ("grpo", grpo_config)])
def test_the_options_written_are_those_of_the_factory(stored, tmp_path, trainer, make):
    import dataclasses

    frozen, model = stored(stop=())
    where = tmp_path / "trl"
    folder = write_trl(
        frozen, PROMPTS, where, model=str(model), batches=BATCHES, prompt_tokens=9, trainer=trainer
    )
    text = (folder / f"{trainer}.yaml").read_text()
    read = yaml.safe_load(text)
    config = make(frozen, num_generations=4, use_cpu=True, bf16=False)
    names = {field.name for field in dataclasses.fields(type(config))}
    ours = {"per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"}
    yours = {"learning_rate", "lr_scheduler_type", "logging_steps", "save_steps", "report_to"}
    for name in names & read.keys() - ours - yours - {"output_dir"}:
        assert read[name] == getattr(config, name), name
    assert {"beta", "temperature", "max_completion_length", "disable_dropout"} <= read.keys()
    assert read["gradient_accumulation_steps"] * read["per_device_train_batch_size"] == 8
    assert read["env"] == {"INFALIGN_FROZEN": str(frozen), "HF_HUB_DISABLE_TELEMETRY": "1"}
    assert read["model_name_or_path"] == str(model), "nothing to change in this model"
    assert "vllm_max_model_length: 13" in text
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in rows] == [prompt.id for prompt in PROMPTS]
    assert all(row["prompt"].startswith("<|endoftext|>it is a") for row in rows)
    again = write_trl(
        frozen, PROMPTS, where, model=str(model), batches=BATCHES, prompt_tokens=9, trainer=trainer
    )
    assert again == folder


def test_a_stop_string_and_a_models_own_settings_become_a_model_folder(stored, tmp_path):
    frozen, model = stored(stop=("e",))
    own = json.loads((model / "generation_config.json").read_text())
    own |= {"suppress_tokens": [7], "top_k": 20}
    (model / "generation_config.json").write_text(json.dumps(own))
    folder = write_trl(frozen, PROMPTS, tmp_path / "a", model=str(model), batches=BATCHES)
    read = yaml.safe_load((folder / "rloo.yaml").read_text())
    assert read["model_name_or_path"] == str(folder / "model")
    written = json.loads((folder / "model" / "generation_config.json").read_text())
    assert written.keys() <= {"bos_token_id", "pad_token_id", "eos_token_id"}
    assert len(written["eos_token_id"]) > 1
    assert (folder / "model" / "model.safetensors").resolve() == model / "model.safetensors"
    assert json.loads((model / "generation_config.json").read_text()) == own, "left as it was"


def test_what_cannot_be_expressed_is_refused(stored, bench, frozen_of, tmp_path):
    frozen, model = stored(stop=("ab",))
    with pytest.raises(ValueError, match="stop at 'ab'"):
        write_trl(frozen, PROMPTS, tmp_path / "a", model=str(model), batches=BATCHES)
    nameless = frozen_of(bench(), "nameless")
    with pytest.raises(ValueError, match="recorded by its name alone"):
        write_trl(nameless, PROMPTS, tmp_path / "b", model=str(model), batches=BATCHES)
    plain = frozen_of(bench(), "plain", section=SECTION)
    with pytest.raises(ValueError, match="prompts per update of 4 prompts"):
        write_trl(plain, PROMPTS, tmp_path / "c", model=str(model))
    assert not any((tmp_path / name).exists() for name in "abc")
