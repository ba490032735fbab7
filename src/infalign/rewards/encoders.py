"""Frozen encoders under the embedded rewards: text to a feature vector.

MiniLM reads a text as a sentence encoder does: the mean over tokens, made a unit vector. SmolLM2
reads it as a language model does: what it holds ready, once a review is closed, to write next.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from infalign.policies.scoring import hidden_states
from infalign.policies.token_tree import pack

__all__ = ["MiniLM", "SmolLM2"]

_BATCH = 32
_LONGEST = 256
"""Tokens read of a text; both encoders were trained on sentences, not essays."""
_SHARED = 128
"""Texts, in alphabetical order, whose beginnings are looked for together."""
_ROW_TOKENS = 256
"""Nodes of one packed row."""

_LAYERS = 24
"""Of SmolLM2's 30."""


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
    """SmolLM2's hidden state at the quote that closes a review, 576 numbers.

    The state after 24 of 30 layers predicts ratings as well as the last (held-out Pearson 0.786
    both), for four fifths of the time. The words that precede every text are run once. In float32
    only: rounded to bfloat16 the states lose a good part of what the head reads.

    Args:
        folder: the converted model.
        before: what precedes every text.
        after: what follows it; the state at its last token is the feature.
    """

    def __init__(
        self, folder: str | Path, before: str = 'Movie review: "', after: str = '"'
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self._model: Any = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
        self._model.layers = self._model.layers[:_LAYERS]
        self._model.norm = torch.nn.Identity()
        self._start = [self._tokenizer.convert_tokens_to_ids("<|endoftext|>"), *self._ids(before)]
        self._end = self._ids(after)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Features of each text; beginnings that texts share are read once."""
        order = sorted(range(len(texts)), key=lambda i: texts[i])
        features = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), _SHARED):
            part = order[start : start + _SHARED]
            features[part] = self._encode([texts[i] for i in part])
        return features

    def _encode(self, texts: list[str]) -> np.ndarray:
        rows = [[*self._start, *self._ids(text)[:_LONGEST], *self._end] for text in texts]
        packed = pack(rows, [(0,)] * len(rows), _ROW_TOKENS)  # what follows is not read
        states = hidden_states(self._model, packed, torch.device("cpu")).numpy()
        place = np.empty(len(rows), np.int64)
        place[packed.path_responses] = packed.sources[packed.path_edges]
        return states[place]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


def _by_length(texts: Sequence[str], encode: Any) -> np.ndarray:
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = [
        encode([texts[i] for i in order[start : start + _BATCH]])
        for start in range(0, len(order), _BATCH)
    ]
    features = np.concatenate(parts)
    return features[np.argsort(order)]
