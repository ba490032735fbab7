"""Frozen encoders under the embedded rewards: text to a feature vector.

MiniLM reads a text as a sentence encoder does: the mean over tokens, made a unit vector. SmolLM2
reads it as a language model does, and is asked to go on: the state from which it would predict how
the reviewer liked the film.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

__all__ = ["MiniLM", "SmolLM2"]

_BATCH = 32
_LONGEST = 256
"""Tokens read of a text; both encoders were trained on sentences, not essays."""


class MiniLM:
    """all-MiniLM-L6-v2: mean-pooled, normalised sentence embeddings, 384 numbers."""

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self._model: Any = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Features of each text."""
        return _by_length(texts, self._encode)

    def _encode(self, texts: list[str]) -> np.ndarray:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
        )
        states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].float()
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy()


class SmolLM2:
    """SmolLM2's last hidden state after a text and a question about it, 576 numbers.

    Args:
        folder: the converted model.
        template: what the text is put into; `{}` marks its place.
    """

    def __init__(self, folder: str | Path, template: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self._model: Any = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
        self._before, self._after = template.split("{}")

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Features of each text."""
        return _by_length(texts, self._encode)

    def _encode(self, texts: list[str]) -> np.ndarray:
        start = self._tokenizer.convert_tokens_to_ids("<|endoftext|>")
        rows = [[start, *self._ids(text)] for text in texts]
        width = max(len(row) for row in rows)
        # Right padding: in a causal model it cannot reach the state that is read.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        states = self._model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(row) - 1 for row in rows])
        return states[torch.arange(len(rows)), last].numpy()

    def _ids(self, text: str) -> list[int]:
        head = self._tokenizer(self._before + text, add_special_tokens=False)["input_ids"]
        tail = self._tokenizer(self._after, add_special_tokens=False)["input_ids"]
        return head[:_LONGEST] + tail


def _by_length(texts: Sequence[str], encode: Any) -> np.ndarray:
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = [
        encode([texts[i] for i in order[start : start + _BATCH]])
        for start in range(0, len(order), _BATCH)
    ]
    features = np.concatenate(parts)
    return features[np.argsort(order)]
