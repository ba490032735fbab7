"""The embedded model answering in one token, on openings of film reviews, trained through LoRA."""

import functools
from typing import Any

import numpy as np
from filelock import FileLock

from benchmarks.arena.runs import FOLDER, save_arrays
from benchmarks.arena.world import Schedule, World
from infalign.assets import asset_folder, embedded_prompts
from infalign.prompts import Prompt

__all__ = ["openings"]

CANDIDATES, TEMPERATURE = 48, 0.8
LAYERS = 12
"""Adapted, of 30: the last ones."""


LISTED = 256
"""Openings of either split whose answers are listed and judged; a world takes the first of them."""


@functools.cache
def openings(train: int = 128, test: int = 256) -> World:
    """Prompts `Movie review: "An eloquent, reflective and`, answers of one token.

    Args:
        train: Prompts trained on, at most 256.
        test: Prompts held out, at most 256.
    """
    every = tuple(embedded_prompts(LISTED, "train") + embedded_prompts(LISTED, "test"))
    rows = [*range(train), *range(LISTED, LISTED + test)]
    listed = {name: values[rows] for name, values in _listed(every).items()}
    texts = [every[row] for row in rows]

    def policy(seed: int) -> Any:
        fresh = _policy(seed)
        fresh.adopt(texts, listed["tokens"], listed["law"])
        return fresh

    return World(
        name="openings",
        about="SmolLM2-135M-Instruct, LoRA, one-token answers to openings of film reviews; reward: "
        "MiniLM head on people's ratings; gold: SmolLM2 head on other ratings",
        prompts=tuple(map(Prompt.from_text, texts)),
        trained=train,
        responses=tuple(tuple(map(str, row)) for row in listed["answers"]),
        law=listed["law"],
        judges={name: listed[name] for name in ("training", "gold", "vader")},
        policy=policy,
        schedule=Schedule(steps=120, learning_rate=1e-3, prompts_per_step=24),
    )


def _policy(seed: int) -> Any:
    import torch

    from infalign.policies import ChoiceLM
    from infalign.policies.loading import LoRA

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        folder = asset_folder("smollm2-135m-instruct")
        lora = LoRA(16, 32, layers=LAYERS)
        return ChoiceLM.from_pretrained(folder, CANDIDATES, TEMPERATURE, lora=lora)


def _listed(texts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Tokens, texts, law and rewards of every answer; found once and kept."""
    path = FOLDER / "worlds" / f"openings-{len(texts)}-{CANDIDATES}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # minutes: two programs need not do it twice
        if not path.exists():
            save_arrays(path, **_judged(texts))
    with np.load(path) as stored:
        return dict(stored)


def _judged(texts: tuple[str, ...]) -> dict[str, np.ndarray]:
    from infalign.rewards.embedded import VaderReward, gold_reward, training_reward

    policy = _policy(0)
    tokens, law = policy.choices(texts)
    answers = policy.responses(texts)
    judges = {"training": training_reward(), "gold": gold_reward(), "vader": VaderReward()}
    rewards = {name: judge(texts, answers) for name, judge in judges.items()}
    return {"tokens": tokens, "law": law, "answers": np.array(answers), **rewards}
