"""Answers of the embedded model to chat prompts, drawn once and kept, a few prompts at a time."""

import functools
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from benchmarks.arena.runs import FOLDER, save_arrays
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
    answers: list[list[str]] = []
    for number, start in enumerate(range(0, len(texts), _PART)):
        part = list(texts[start : start + _PART])
        key = hashlib.sha256(repr((part, k, longest, seed)).encode()).hexdigest()[:16]
        path = FOLDER / "worlds" / f"answers-{key}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):  # another claim may be at it
                if not path.exists():
                    print(f"sampling: {start} of {len(texts)} prompts", file=sys.stderr)
                    _draw(policy(), part, k, np.random.default_rng([seed, number]), path)
        with np.load(path) as stored:
            answers += stored["answers"].tolist()
    return answers


def _draw(policy: Any, part: list[str], k: int, rng: np.random.Generator, path: Path) -> None:
    began = time.process_time()
    drawn = policy.sample(part, k, rng)
    texts = np.array([[answer.text for answer in row] for row in drawn])
    save_arrays(path, answers=texts, cpu_seconds=np.array(time.process_time() - began))


def _policy(longest: int) -> Any:
    from infalign.assets import asset_folder
    from infalign.policies import CausalLM
    from infalign.protocols import Sampling

    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=longest)
    return CausalLM.from_pretrained(asset_folder("smollm2-135m-instruct"), sampling, threads=1)
