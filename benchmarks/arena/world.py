"""A world: prompts whose responses can all be listed, so that whatever is measured is a sum.

Two kinds of policy live here. A language model that answers in one token, trained through LoRA:
its responses are its C most likely tokens (:class:`infalign.policies.ChoiceLM`). And a table with
a free logit for each of C real responses, for data where the texts are given: it can represent
every law, so it shows what a *method* aims at, without what a network can or cannot learn.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from benchmarks.arena.store import Store
from infalign.prompts import Prompt

__all__ = ["Schedule", "Split", "World"]

Split = Literal["train", "held-out"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The compute every method gets."""

    steps: int = 200
    """Updates."""
    learning_rate: float = 1e-3
    """AdamW's, falling by a cosine."""
    prompts_per_step: int | None = 24
    """Prompts in one step; None: all."""


@dataclasses.dataclass(frozen=True)
class World:
    """Prompts, their listed responses, the reference's law and every judge's rewards."""

    name: str
    """Folder of its runs."""
    about: str
    """One line for tables and figures: which model, prompts, reward, judges."""
    prompts: tuple[Prompt, ...]
    """Training prompts first, then held-out ones."""
    trained: int
    """How many are trained on; the rest are held out. A table cannot generalise: all."""
    responses: tuple[tuple[str, ...], ...]
    """C texts to each prompt."""
    law: Float[np.ndarray, "P C"]
    """π_ref; rows sum to 1."""
    judges: Mapping[str, Float[np.ndarray, "P C"]]
    """Rewards by judge. `training` is trained on; `gold` and others only judge."""
    policy: Callable[[int], Any]
    """seed → a fresh EnumerablePolicy at the reference, on these prompts."""
    schedule: Schedule = Schedule()
    """The same for all methods."""
    k: int | None = None
    """Rollouts per prompt that training gets; None: the law itself."""

    def __post_init__(self) -> None:
        shape = self.law.shape
        if not np.allclose(self.law.sum(1), 1):
            raise ValueError(f"the law of world {self.name!r} does not sum to 1 in every row.")
        for judge, rewards in self.judges.items():
            if rewards.shape != shape or not np.isfinite(rewards).all():
                raise ValueError(
                    f"judge {judge!r} has shape {rewards.shape}, needed are {shape} finite numbers."
                )
        if "training" not in self.judges:
            raise ValueError(f"world {self.name!r} has no judge 'training' to train on.")

    def rows(self, split: Split) -> slice:
        """Where the prompts of a split are."""
        return slice(0, self.trained) if split == "train" else slice(self.trained, None)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that have prompts."""
        return ("train", "held-out") if self.trained < len(self.prompts) else ("train",)

    def store(self, seed: int) -> Store:
        """What every method learns from, of the training prompts."""
        rows = self.rows("train")
        law, rewards = self.law[rows], self.judges["training"][rows]
        if self.k is None:
            return Store(law, rewards)
        return Store.drawn(law, rewards, self.k, np.random.default_rng([seed, self.k]))

    def with_training(self, name: str, rewards: Float[np.ndarray, "P C"], about: str) -> "World":
        """The same world with another reward to train on; the old one stays as judge `intended`."""
        judges = {**self.judges, "intended": self.judges["training"], "training": rewards}
        return dataclasses.replace(self, name=name, about=about, judges=judges)

    @property
    def fingerprint(self) -> str:
        """Hash of all that runs on it depend on."""
        digest = hashlib.sha256(repr((self.schedule, self.k, self.trained)).encode())
        digest.update("\n".join(prompt.id for prompt in self.prompts).encode())
        digest.update(self.law.round(6).tobytes())  # the last digits depend on the machine
        digest.update(self.judges["training"].round(4).tobytes())
        return digest.hexdigest()[:12]
