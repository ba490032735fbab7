"""A tiny policy, a problem on it, and the same problem's reward frozen: for all tests of TRL."""

import dataclasses
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl")

from infalign.integrations.freezing import freeze
from infalign.protocols import Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.training import CalibratedReward, Problem

sys.path.insert(0, str(Path(__file__).parent))
from small import PROMPTS, TRANSFORM, Vowels


@pytest.fixture(scope="session", autouse=True)
def _alone():
    """Nothing is sent anywhere, and one thread is enough for models this small."""
    import torch

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    yield
    torch.set_num_threads(threads)


@dataclasses.dataclass(frozen=True)
class Bench:
    """A policy and its problem."""

    policy: object
    problem: Problem


@pytest.fixture
def bench(make_lm, shake):
    """Makes a policy with an adapter, moved away from the reference if asked, and its problem."""

    def make(*, stop=('"',), tokens=4, beta=0.3, moved=0.0, prompts=PROMPTS, dropout=0.0):
        from infalign.policies import LoRA

        sampling = Sampling(0.9, tokens, stop)
        policy = make_lm(sampling, lora=LoRA(rank=4, dropout=dropout))
        texts = [prompt.text for prompt in prompts]
        with policy.reference():
            rollouts = policy.sample(texts, 32, np.random.default_rng(0))
        rewards = Vowels()(texts, [[r.text for r in row] for row in rollouts])
        calibration = EmpiricalCalibration(tuple(p.id for p in prompts), rewards)
        reward = CalibratedReward(Vowels(), calibration, TRANSFORM)
        if moved:
            shake(policy, moved)
        return Bench(policy, Problem(prompts, reward, beta, rollouts))

    return make


@pytest.fixture
def frozen_of(tmp_path):
    """Freezes the reward of a bench; returns its folder."""

    def write(bench, name="frozen", section=None):
        calibration, sampling = bench.problem.rewards.calibration, bench.policy.sampling
        return freeze(
            tmp_path / name,
            prompt_ids=bench.problem.ids,
            prompts=bench.problem.texts,
            reference_rewards=calibration.reference_rewards,
            rank_means=TRANSFORM.rank_means(calibration.k),
            facts={
                "k": calibration.k,
                "beta": bench.problem.beta,
                "reward": {"name": "vowels"} | ({"section": section} if section else {}),
                "transform": TRANSFORM.name,
                "procedure": "best-of-4",
                "policy": {"name": "tiny", "fingerprint": "0"},
                "sampling": dataclasses.asdict(sampling),
                "end_marks": ["<|im_end|>"],
            },
        )

    return write
