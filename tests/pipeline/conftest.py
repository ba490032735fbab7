"""A tiny model on disk, prompts on disk, a user's own reward: experiments that run in seconds."""

import json
import sys

import pytest
import yaml

pytest.importorskip("torch")

REWARD = '''
import hashlib


def vowels(prompts, responses):
    """Share of vowels, and a little that depends on the text alone, so that ties are rare."""
    return [[_score(text) for text in row] for row in responses]


def _score(text):
    noise = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6
    return sum(c in "aeiou" for c in text) / (1 + len(text)) + 0.1 * noise


def length(prompts, responses):
    return [[float(len(text)) for text in row] for row in responses]


def constant(prompts, responses):
    return [[1.0 for _ in row] for row in responses]


def short(prompts, responses):
    return [[1.0] for row in responses]


def broken(prompts, responses):
    raise KeyError("no such thing")


def nan(prompts, responses):
    return [[float("nan") for _ in row] for row in responses]
'''


@pytest.fixture(scope="session")
def workshop(tmp_path_factory, tokenizer, tiny_llama):
    """A folder with a model, prompts and a reward module."""
    folder = tmp_path_factory.mktemp("workshop")
    model = tiny_llama(len(tokenizer))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    words = ["tender", "lazy", "lush", "cliche", "story", "cast", "film", "excuse", "touching"]
    lines = [json.dumps({"prompt": f"it is a {word}"}) for word in words]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    (folder / "my_rewards.py").write_text(REWARD)
    return folder


@pytest.fixture
def experiment_data(workshop, tmp_path, monkeypatch):
    """Makes the mapping of an experiment file; sections given are merged into the defaults."""
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(str(workshop))
    sys.modules.pop("my_rewards", None)

    def make(**changes):
        data = {
            "output": str(tmp_path / "run"),
            "prompts": {"path": str(workshop / "prompts.jsonl"), "train": 5, "test": 4},
            "policy": {
                "kind": "causal_lm",
                "model": str(workshop / "model"),
                "max_new_tokens": 4,
                "dtype": "float32",
                "lora": {"rank": 4},
            },
            "rollouts": {"k": 16},
            "reward": {"kind": "callable", "function": "my_rewards:vowels"},
            "gold": {"kind": "callable", "function": "my_rewards:length"},
            "procedure": {"kind": "best_of_n", "n": 4},
            "training": {
                "kind": "fit",
                "kl": 0.5,
                "steps": 6,
                "learning_rate": 1e-2,
                "checkpoint_every": 2,
                "measure_every": 0,
            },
            "baselines": ["raw"],
            "evaluate": {"samples": 8, "ns": [1, 2, 4, 8], "checkpoints": 2},
        }
        for section, change in changes.items():
            merge = isinstance(change, dict) and "kind" not in change
            data[section] = {**data[section], **change} if merge else change
        return data

    return make


@pytest.fixture
def experiment(experiment_data):
    """Makes experiments."""
    from infalign.config import validate_experiment

    return lambda **changes: validate_experiment(experiment_data(**changes))


@pytest.fixture
def experiment_file(experiment_data, tmp_path):
    """Writes an experiment file."""

    def write(name="experiment.yaml", **changes):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(experiment_data(**changes)))
        return path

    return write
