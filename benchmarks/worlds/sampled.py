"""Answers of the embedded model to chat prompts, drawn once and kept, a few prompts at a time."""

import hashlib
import sys
import time
from collections.abc import Sequence

import numpy as np

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
    policy, answers = None, []
    for number, start in enumerate(range(0, len(texts), _PART)):
        part = list(texts[start : start + _PART])
        key = hashlib.sha256(repr((part, k, longest, seed)).encode()).hexdigest()[:16]
        path = FOLDER / "worlds" / f"answers-{key}.npz"
        if not path.exists():
            policy = policy or _policy(longest)
            print(f"sampling: {start} of {len(texts)} prompts", file=sys.stderr)
            began = time.process_time()
            drawn = policy.sample(part, k, np.random.default_rng([seed, number]))
            kept = np.array([[answer.text for answer in row] for row in drawn])
            save_arrays(path, answers=kept, cpu_seconds=np.array(time.process_time() - began))
        with np.load(path) as stored:
            answers += stored["answers"].tolist()
    return answers


def _policy(longest: int):
    from infalign.assets import asset_folder
    from infalign.policies import CausalLM
    from infalign.protocols import Sampling

    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=longest)
    return CausalLM.from_pretrained(asset_folder("smollm2-135m-instruct"), sampling, threads=1)
