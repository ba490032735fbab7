"""A world of free text that needs nothing fetched: a random model, and a reward that counts."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.frontier.text_methods import Schedule
from benchmarks.frontier.text_world import TextWorld
from benchmarks.tiny_model import tiny_model
from infalign.prompts import Prompt
from infalign.protocols import Sampling
from infalign.quantile.procedures import BestOfN

__all__ = ["SCHEDULE", "Counting", "made"]

SCHEDULE = Schedule(steps=16, learning_rate=1e-2, prompts_per_step=12, k=16, points=(8, 16), kl=0.7)


class Counting:
    """Mean code point of a response, shifted and scaled by prompt: real-valued, few ties."""

    def __init__(self, name: str, slope: float = 1.0) -> None:
        self.name, self.slope = name, slope

    def __call__(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]]
    ) -> Float[np.ndarray, "P K"]:
        return np.array(
            [
                [len(prompt) * self.slope * _mean_code(text) for text in row]
                for prompt, row in zip(prompts, responses, strict=True)
            ]
        )


def _mean_code(text: str) -> float:
    codes = [min(ord(letter), 255) for letter in text] or [0]
    return float(np.mean(codes)) / 100


def _policy(seed: int) -> Any:
    import torch

    from infalign.policies.causal_lm import CausalLM
    from infalign.policies.loading import LoRA

    torch.set_num_threads(1)
    model, tokenizer = tiny_model()
    sampling = Sampling(0.5, 2)
    lora = LoRA(8, 16, seed=seed)
    return CausalLM(model, tokenizer, sampling, lora=lora, dtype="float32", name="tiny")


def made(prompts: int = 12) -> TextWorld:
    """P prompts answered by a random Llama in 2 tokens; gold is the training reward, halved."""
    texts = [f"{'a tender film ' * (1 + p % 3)}{p}" for p in range(2 * prompts)]
    asked = tuple(map(Prompt.from_text, texts))
    judges = {"training": functools.partial(Counting, "count")}
    judges["gold"] = functools.partial(Counting, "half count", 0.5)
    return TextWorld(
        name="made",
        about="a random Llama, rewarded for letters late in the alphabet",
        prompts={"train": asked[:prompts], "held-out": asked[prompts:]},
        procedure=BestOfN(4),
        judges=judges,
        policy=_policy,
        k=32,
        samples=24,
        references=32,
        measured=prompts,
    )
