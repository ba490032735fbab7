"""Several answers to each prompt: in their order, and never all side by side."""

import dataclasses

import numpy as np
import pytest

from infalign.decoding import repeating
from infalign.decoding.mcmc import MCMC, RewardTilt
from infalign.decoding.repeating import decode_repeatedly
from infalign.policies import TabularLM
from infalign.prompts import Prompt
from infalign.quantile.procedures import BestOfN

PROMPTS = [Prompt(f"id{p}", f"x{p}") for p in range(5)]
LM = TabularLM.random([p.text for p in PROMPTS], ("a", "b"), 3, np.random.default_rng(0))


class Length:
    name = "length"

    def __call__(self, prompts, responses):
        return np.array([[float(len(text)) for text in row] for row in responses])


@dataclasses.dataclass
class Widest:
    """A table that remembers how many rows were asked for at once."""

    lm: TabularLM = LM
    name: str = "widest"
    fingerprint: str = ""
    most: int = 0

    @property
    def sampling(self):
        return self.lm.sampling

    def sample(self, prompts, k, rng):
        self.most = max(self.most, len(prompts) * k)
        return self.lm.sample(prompts, k, rng)

    def continue_from(self, prompts, beginnings, k, rng, *, limit=None):
        self.most = max(self.most, len(prompts) * k)
        return self.lm.continue_from(prompts, beginnings, k, rng, limit=limit)


@pytest.mark.parametrize("at_once", [1, 4, 7, 512])
def test_no_more_chains_walk_side_by_side_than_fit(at_once, monkeypatch):
    """Before: all 15 at any number of prompts."""
    monkeypatch.setattr(repeating, "AT_ONCE", at_once)
    policy, chain = Widest(), MCMC(RewardTilt(1.0), rounds=2)
    found = decode_repeatedly(policy, PROMPTS, Length(), chain, 3, rng=np.random.default_rng(1))
    assert policy.most == min(at_once, 15)
    assert [[one.prompt_id for one in row] for row in found] == [[p.id] * 3 for p in PROMPTS]


def test_answers_do_not_repeat_themselves(monkeypatch):
    monkeypatch.setattr(repeating, "AT_ONCE", 2)
    found = decode_repeatedly(
        LM, PROMPTS[:1], Length(), BestOfN(1), 40, rng=np.random.default_rng(1)
    )
    assert len({one.text for one in found[0]}) > 3
