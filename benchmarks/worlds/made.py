"""A made world for `--smoke` and tests: random laws and rewards, nothing fetched."""

import numpy as np

from benchmarks.arena.world import Schedule, World
from infalign.policies import SoftmaxTable, TabularPolicy
from infalign.prompts import Prompt

__all__ = ["made"]


def made(prompts: int = 8, responses: int = 12, seed: int = 0, k: int | None = None) -> World:
    """P prompts with C responses; reward scales differ by prompt, and gold agrees partly."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.full(responses, 2.0), prompts)
    scale = np.exp(rng.normal(0, 0.7, (prompts, 1)))
    training = scale * rng.normal(size=law.shape)
    gold = training / scale + rng.normal(size=law.shape)
    asked = tuple(Prompt.from_text(f"prompt {p}") for p in range(prompts))
    texts = tuple(tuple(f"answer {c}" for c in range(responses)) for _ in asked)
    table = TabularPolicy(tuple(p.text for p in asked), texts, law, "made")
    return World(
        name="made",
        about="random laws and rewards",
        prompts=asked,
        trained=prompts,
        responses=texts,
        law=law,
        judges={"training": training, "gold": gold},
        policy=lambda seed: SoftmaxTable(table),
        schedule=Schedule(steps=600, learning_rate=0.1, prompts_per_step=None),
        k=k,
    )
