"""Frozen rewards of the engines' tests; makes `tests/integrations/engines.py` importable."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

REWARD = """
import zlib


def bucket(prompts, responses):
    \"\"\"Few values, so that ties are frequent; any text has one.\"\"\"
    rows = zip(prompts, responses)
    return [[zlib.crc32((p + r).encode()) % 9 / 7 for r in row] for p, row in rows]
"""


@pytest.fixture(scope="session")
def reward_module(tmp_path_factory):
    """The name of a module with a reward function, importable here and in child processes."""
    folder = tmp_path_factory.mktemp("reward")
    (folder / "bucket_reward.py").write_text(REWARD)
    sys.path.insert(0, str(folder))
    yield "bucket_reward"
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def freeze_at(reward_module):
    """Makes a frozen reward: folder, prompts by id, reference rewards, transform, facts."""
    from infalign.integrations.freezing import freeze

    def make(folder, prompts, rewards, transform, **changes):
        rewards = np.asarray(rewards, dtype=float)
        facts = {
            "k": rewards.shape[1],
            "beta": 0.25,
            "reward": {
                "name": "bucket",
                "section": {"kind": "callable", "function": f"{reward_module}:bucket"},
            },
            "transform": transform.name,
            "procedure": "best-of-4",
            "policy": {"name": "tiny", "model": "tiny/model", "fingerprint": "0"},
            "sampling": {"temperature": 0.8, "max_new_tokens": 12, "stop": ["\n"]},
            "end_marks": ["<|im_end|>", "<|endoftext|>"],
            "special_tokens": ["<|im_end|>", "<|endoftext|>", "<|im_start|>"],
        }
        return freeze(
            folder,
            prompt_ids=list(prompts),
            prompts=list(prompts.values()),
            reference_rewards=rewards,
            rank_means=transform.rank_means(rewards.shape[1]),
            facts=facts | changes,
        )

    return make


@pytest.fixture(scope="session")
def prompts():
    """Three prompts, with what shells, templates and JSON could trip over."""
    from infalign.prompts import Prompt

    texts = ("Why is the sky blue?", "Say \"hi\", {{ all }} of\nyou: $HOME 'x'", "Größe? 你好")
    return [Prompt.from_text(text) for text in texts]


@pytest.fixture(scope="session")
def frozen(tmp_path_factory, freeze_at, prompts):
    """The folder of a frozen reward of `prompts`, K = 6, steep."""
    from infalign.quantile.transforms import Exponential

    rewards = np.random.default_rng(0).integers(0, 9, (3, 6)) / 7
    folder = tmp_path_factory.mktemp("frozen") / "frozen"
    return freeze_at(folder, {p.id: p.text for p in prompts}, rewards, Exponential(5.0))


@pytest.fixture
def cluster():
    """The address of a Ray cluster of two workers: one for all tests of this process.

    Joined, not started, where there is one. Ray itself ends it with the process, if no test does.
    """
    import ray

    from infalign.integrations.ray import Workers, connect

    connect("local", Workers(2))
    return ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """The store of Ray's tests as one process makes it."""
    from ray_words import CHUNK, PROMPTS, K, Length, Words, opened

    from infalign.rollouts import RolloutStore, collect, score

    path = tmp_path_factory.mktemp("alone") / "s"
    collect(Words(), PROMPTS, K, opened(path), chunk=CHUNK)
    score(RolloutStore.existing(path), Length(), PROMPTS, chunk=CHUNK)
    return path
