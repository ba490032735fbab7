"""Free text: prompts, the reference's rollouts to train on, fresh ones to judge against.

Nothing can be listed here, so everything is sampled: K rollouts to each training prompt are the one
store that all methods learn from, and no policy is judged by them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.arena.runs import FOLDER
from infalign.pipeline.measurement import SPLITS, Split
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN
from infalign.rollouts import RolloutStore, collect
from infalign.rollouts.scoring import score

__all__ = [
    "Progress",
    "Stored",
    "TextWorld",
    "film",
    "gold_of_reference",
    "harmless",
    "language_model",
    "stored",
]

Progress = Callable[[str], None]
LAYERS = 12
"""Adapted, of 30: the last ones."""


@dataclasses.dataclass(frozen=True)
class TextWorld:
    """A language model that answers in a few tokens, and those who judge it."""

    name: str
    """Folder of its rollouts and runs."""
    about: str
    """One line for tables and figures."""
    prompts: Mapping[Split, tuple[Prompt, ...]]
    """Trained on, and held out."""
    procedure: RankProcedure
    """Decodes policy and reference."""
    judges: Mapping[str, Callable[[], Reward]]
    """`training` is trained on, `gold` only judges; made when first needed."""
    policy: Callable[[int], Any]
    """seed → a fresh policy at the reference, with an adapter to train."""
    k: int = 64
    """Rollouts of each training prompt that every method learns from."""
    samples: int = 16
    """Fresh samples to each measured prompt, of every policy."""
    references: int = 48
    """Fresh samples of the reference, that every policy is judged against."""
    measured: int = 48
    """Training prompts that are measured; held-out ones all are."""

    root: Path = FOLDER / "text"
    """Where folders of worlds are."""

    @property
    def folder(self) -> Path:
        """Where its rollouts and measurements are kept."""
        return self.root / self.name

    def asked(self, split: Split) -> tuple[Prompt, ...]:
        """The prompts that policies are measured on."""
        limit = self.measured if split == "train" else None
        return self.prompts[split][:limit]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the training prompts."""
        return tuple(prompt.id for prompt in self.prompts["train"])


@dataclasses.dataclass(frozen=True)
class Stored:
    """What every run shares."""

    rollouts: list[list[Response]]
    """K of each training prompt."""
    rewards: Float[np.ndarray, "P K"]
    """Theirs, by the training judge."""
    calibration: EmpiricalCalibration
    """Quantiles among them."""
    fresh: Mapping[Split, Float[np.ndarray, "P M"]]
    """Rewards of the reference's fresh samples to the measured prompts, by the same judge."""


def stored(world: TextWorld, policy: Any | None, progress: Progress) -> Stored:
    """Draws and scores what is missing; a second call reads it, and needs no policy."""
    train = world.prompts["train"]
    both = [prompt for split in SPLITS for prompt in world.asked(split)]
    judge = world.judges["training"]()
    folders = world.folder / "rollouts", world.folder / "fresh"
    if policy is None:
        rollouts, fresh = map(RolloutStore.existing, folders)
    else:
        with policy.reference():
            rollouts, fresh = (
                RolloutStore.open(folder, policy, seed) for seed, folder in enumerate(folders, 1)
            )
            _fill(policy, train, world.k, rollouts, progress, "rollouts")
            _fill(policy, both, world.references, fresh, progress, "fresh reference samples")
        progress("rewards")
        score(rollouts, judge, train)
        score(fresh, judge, both)
    rewards = rollouts.rewards(judge.name, train, world.k)
    judged: dict[Split, np.ndarray] = {
        split: fresh.rewards(judge.name, world.asked(split), world.references) for split in SPLITS
    }
    calibration = EmpiricalCalibration(world.ids, rewards)
    return Stored(rollouts.responses(train, world.k), rewards, calibration, judged)


def gold_of_reference(world: TextWorld) -> dict[Split, Float[np.ndarray, "P M"]]:
    """What the gold judge says of the reference's fresh samples; scored once."""
    judge, fresh = world.judges["gold"](), RolloutStore.existing(world.folder / "fresh")
    score(fresh, judge, [prompt for split in SPLITS for prompt in world.asked(split)])
    return {
        split: fresh.rewards(judge.name, world.asked(split), world.references) for split in SPLITS
    }


def _fill(
    policy: Any, prompts: Any, k: int, store: RolloutStore, progress: Progress, what: str
) -> None:
    def told(done: int, total: int) -> None:
        progress(f"{what} {done}/{total}")

    collect(policy, prompts, k, store, progress=told)


@functools.cache
def _reward(name: str) -> Reward:
    from infalign.rewards import embedded

    return embedded.training_reward() if name == "training" else embedded.gold_reward()


def language_model(sampling: Sampling, seed: int) -> Any:
    """The embedded model with a fresh adapter, on one thread. Its body is bfloat16 on any CPU."""
    import torch

    from infalign.assets import asset_folder
    from infalign.policies.causal_lm import CausalLM
    from infalign.policies.loading import LoRA

    torch.set_num_threads(1)
    lora = LoRA(16, 32, layers=LAYERS, seed=seed)
    folder = asset_folder("smollm2-135m-instruct")
    # Timing decides otherwise, and on a busy machine it could decide another way the next time.
    return CausalLM.from_pretrained(folder, sampling, lora=lora, dtype="bfloat16")


def film(train: int = 48, test: int = 32) -> TextWorld:
    """Openings of film reviews, continued by at most 8 tokens; decoded by best-of-4."""
    from infalign.assets import embedded_prompts

    sampling = Sampling(0.8, 8, ('"', "\n"))
    return TextWorld(
        name="film",
        about="SmolLM2-135M-Instruct, LoRA, openings of film reviews continued by at most 8 "
        "tokens; reward: MiniLM head on people's ratings; gold: SmolLM2 head on other ratings",
        prompts={
            "train": tuple(map(Prompt.from_text, embedded_prompts(train, "train"))),
            "held-out": tuple(map(Prompt.from_text, embedded_prompts(test, "test"))),
        },
        procedure=BestOfN(4),
        judges={name: functools.partial(_reward, name) for name in ("training", "gold")},
        policy=functools.partial(language_model, sampling),
    )


def harmless(train: int = 48, test: int = 32, longest: int = 12) -> TextWorld:
    """Dialogues of HH-RLHF's harmless set, answered in at most 12 tokens; decoded by worst-of-4.

    Raises:
        MissingData: the pairs are not there.
    """
    from benchmarks.worlds.choices import reward
    from benchmarks.worlds.harmless import harmless_prompts

    prompts = tuple(map(Prompt.from_text, harmless_prompts(train + test)))
    return TextWorld(
        name="harmless",
        about=f"SmolLM2-135M-Instruct, LoRA, HH harmless dialogues answered in at most {longest} "
        "tokens; reward and gold: MiniLM and style heads, each on its half of people's choices",
        prompts={"train": prompts[:train], "held-out": prompts[train:]},
        procedure=WorstOfN(4),
        judges={
            "training": functools.partial(reward, "training", longest),
            "gold": functools.partial(reward, "gold", longest),
        },
        policy=functools.partial(language_model, Sampling(0.8, longest)),
    )
