"""Answers of the embedded model to chat prompts, drawn once and kept, a few prompts at a time."""

import functools
import hashlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.arena.runs import FOLDER
from benchmarks.worlds.kept import once
from infalign.prompts import Message

__all__ = ["rendered", "sampled"]

TEMPERATURE = 0.8
_PART = 8
"""Prompts drawn together; what is interrupted loses no more than these."""


def rendered(dialogues: Sequence[Sequence[Message]]) -> list[str]:
    """Prompt texts: the chat template of SmolLM2-135M-Instruct, ready for its turn."""
    from transformers import AutoTokenizer

    from infalign.assets import asset_folder

    tokenizer = AutoTokenizer.from_pretrained(str(asset_folder("smollm2-135m-instruct")))
    return [
        tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
        for turns in dialogues
    ]


def sampled(texts: Sequence[str], k: int, longest: int, seed: int = 0) -> list[list[str]]:
    """K answers of at most `longest` tokens to each prompt, at temperature 0.8.

    The same whatever was kept before: every part of the prompts has its own generator.
    """
    policy = functools.cache(lambda: _policy(longest))

    def part(start: int) -> list[list[str]]:
        asked = list(texts[start : start + _PART])
        key = hashlib.sha256(repr((asked, k, longest, seed)).encode()).hexdigest()[:16]

        def make() -> dict[str, np.ndarray]:
            print(f"sampling: {start} of {len(texts)} prompts", file=sys.stderr)
            return _drawn(policy(), asked, k, np.random.default_rng([seed, start // _PART]))

        return once(FOLDER / "worlds" / f"answers-{key}.npz", make)["answers"].tolist()

    return [row for start in range(0, len(texts), _PART) for row in part(start)]


def _drawn(policy: Any, part: list[str], k: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    began = time.process_time()
    drawn = policy.sample(part, k, rng)
    texts = np.array([[answer.text for answer in row] for row in drawn])
    return {"answers": texts, "cpu_seconds": np.array(time.process_time() - began)}


def _policy(longest: int) -> Any:
    from infalign.assets import asset_folder
    from infalign.policies import CausalLM
    from infalign.protocols import Sampling

    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=longest)
    return CausalLM.from_pretrained(asset_folder("smollm2-135m-instruct"), sampling, threads=1)
