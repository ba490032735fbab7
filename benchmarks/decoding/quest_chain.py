"""The published engine's chain, in an environment of its own; asked by speed.py, told in JSON.

python quest_chain.py < question.json > answer.json

Its Hugging Face model class asks for a GPU: here its constructor is replaced by one that loads the
same model on the CPU, GPU markers do nothing, and a package that only its reward models need is
left out. Sampling, chain and acceptance are its own.
"""

import contextlib
import json
import sys
import time
import types
from typing import Any

import torch

for _name in ("range_push", "range_pop"):
    setattr(torch.cuda.nvtx, _name, lambda *_: None)
_absent: Any = types.ModuleType("trl")
_absent.AutoModelForCausalLMWithValueHead = object
sys.modules.setdefault("trl", _absent)

from quest.model.base import LocalLanguageModel  # noqa: E402
from quest.model.hf import HF  # noqa: E402
from quest.qalign import QAlign  # noqa: E402
from quest.reward.base import Reward  # noqa: E402
from rewarding import variety  # noqa: E402


class OnCPU(HF):
    """Its model class, on the CPU; prompts come as the tokens that the others are given."""

    def __init__(self, folder: str, dtype: str, tokens: int, stops: list[int], seed: int) -> None:
        from transformers import AutoModelForCausalLM

        LocalLanguageModel.__init__(self, folder, temperature=1.0, max_new_tokens=tokens)
        self.device_map = "cpu"
        kind = getattr(torch, dtype)
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=kind, attn_implementation="sdpa"
        ).eval()
        self.stop_words_ids = stops
        torch.manual_seed(seed)

    def encode(self, prompt_data: list[list[int]]) -> list[list[int]]:
        """They are tokens already."""
        return prompt_data


class Variety(Reward):
    """The reward of the other chains."""

    def evaluate(
        self, candidates: list[str], accepted_indices: Any = None, **_: Any
    ) -> list[float]:
        """One number a text."""
        return [variety(text) for text in candidates]


def main() -> None:
    """Warm up with two steps, then run and tell."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    model = OnCPU(asked["folder"], asked["dtype"], asked["tokens"], asked["stops"], asked["seed"])
    with contextlib.redirect_stdout(sys.stderr):
        for steps in (2, asked["steps"]):
            chain = QAlign(asked["contexts"], model, Variety("variety"), beta=asked["beta"])
            wall, processor = time.perf_counter(), time.process_time()
            chain.run(steps=steps)
            processor, wall = time.process_time() - processor, time.perf_counter() - wall
    first, *path = chain.state_path
    new = sum(map(len, first["completion"])) + sum(
        len(tokens) - index
        for state in path
        for tokens, index in zip(state["completion"], state["index"], strict=True)
    )
    accepted = sum(int(taken) for state in path for taken in state["accept"])
    told = {"steps": len(path) * len(asked["contexts"]), "accepted": accepted, "tokens": new}
    json.dump(told | {"processor": processor, "wall": wall}, sys.stdout)


if __name__ == "__main__":
    main()
