"""Small worlds in which every law is known: a table of tokens or of sites, and a random reward."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from infalign.policies import MaskedTable, TabularLM
from infalign.prompts import Prompt


class Lookup:
    """A reward that looks texts up."""

    name = "lookup"

    def __init__(self, texts, values):
        self.values = dict(zip(texts, values, strict=True))

    def __call__(self, prompts, responses):
        return np.array([[self.values[text] for text in row] for row in responses])


@dataclasses.dataclass
class World:
    """One prompt, S responses, their reference masses and rewards."""

    policy: Any
    rewards: np.ndarray
    prompt: Prompt = dataclasses.field(default_factory=lambda: Prompt.from_text("x"))

    @property
    def masses(self):
        return self.policy.masses[0]

    @property
    def texts(self):
        return self.policy.texts()

    @property
    def reward(self):
        return Lookup(self.texts, self.rewards)

    def empirical(self, states):
        """Shares of the S responses among states."""
        places = [self.policy.places[state.token_ids] for state in states]
        return np.bincount(places, minlength=len(self.rewards)) / len(places)


@pytest.fixture(scope="session")
def lm_world():
    """A language model of three tokens: 364 responses where the cap is 5."""

    def make(cap=5, seed=0):
        rng = np.random.default_rng(seed)
        lm = TabularLM.random(("x",), ("a", "b", "c"), cap, rng)
        return World(lm, rng.standard_normal(len(lm.sequences)))

    return make


@pytest.fixture(scope="session")
def masked_world():
    """A masked model of 3^5 = 243 responses."""

    def make(seed=0):
        rng = np.random.default_rng(seed)
        model = MaskedTable.random(("x",), ("a", "b", "c"), 5, rng)
        return World(model, rng.standard_normal(len(model.sequences)))

    return make
