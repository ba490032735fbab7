"""Responses of a causal language model being written side by side, by whoever reads its laws.

Rows may be dropped, reordered and repeated between tokens, as beams are; their keys and values move
with them. Where the architecture keeps a cache that cannot be moved so (sliding windows, recurrent
states), the rows are read anew for each token: the same laws, at a price.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from infalign.policies.next_token import Head
from infalign.policies.slots import Slots, is_refillable

__all__ = ["CausalStream"]


class CausalStream:
    """R rows of tokens, the law of each one's next token, and what it takes to add one.

    Args:
        body: maps `input_ids` to `last_hidden_state`, and keeps `past_key_values`.
        head: hidden state to logits.
        temperature: divides the logits.
        read: R token sequences, each a prompt and the beginning of a response.
        longest: tokens that no row will hold more of.
        weights: opens a block within which the body has the weights to use.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        head: Head,
        temperature: float,
        read: Sequence[tuple[int, ...]],
        longest: int,
        weights: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self._body, self._head, self._temperature = body, head, temperature
        self._weights, self._longest = weights, longest
        self._read = list(read)
        self._law: np.ndarray | None = None
        self._slots: Slots | None = None
        self._hidden = self._start()

    def log_law(self) -> Float[np.ndarray, "R V"]:
        """log π(·|x, y) of each row's next token, under the sampling law. Nats, normalised."""
        if self._law is None:
            with torch.no_grad():
                logits = self._head.logits(self._hidden) / self._temperature
                self._law = torch.log_softmax(logits.double(), -1).cpu().numpy()
        return self._law

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Row r becomes what row `rows[r]` was, with `tokens[r]` appended.

        Raises:
            ValueError: another number of tokens than of rows, or none; a row or token that is not
                there; or a row that is as long as the length cap allows.
        """
        self._refuse(rows, tokens)
        pairs = zip(rows, tokens, strict=True)
        self._read = [(*self._read[row], int(token)) for row, token in pairs]
        self._law = None
        if self._slots is None:
            self._hidden = self._start()
            return
        slots, device = self._slots, self._head.weight.device
        if list(rows) != list(range(len(slots.positions))):
            slots.keep(torch.tensor(rows, device=device))
        with torch.no_grad(), self._weights():
            out = self._body(
                input_ids=torch.tensor([[int(token)] for token in tokens], device=device),
                attention_mask=slots.mask(),
                position_ids=slots.positions[:, None],
                past_key_values=slots.cache,
                use_cache=True,
            )
        slots.positions = slots.positions + 1
        self._hidden = out.last_hidden_state[:, -1]

    def _start(self) -> torch.Tensor:
        """Read each distinct row once, whole; its last hidden state."""
        distinct = {row: place for place, row in enumerate(dict.fromkeys(self._read))}
        device = self._head.weight.device
        lengths = torch.tensor([len(row) for row in distinct], device=device)
        width = int(lengths.max())
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in distinct], device=device)
        columns = torch.arange(width, device=device)
        with torch.no_grad(), self._weights():
            out = self._body(
                input_ids=ids,
                attention_mask=(columns < lengths[:, None]).long(),
                position_ids=columns.expand_as(ids),
                use_cache=True,
            )
        sources = torch.tensor([distinct[row] for row in self._read], device=device)
        last = out.last_hidden_state[torch.arange(len(distinct), device=device), lengths - 1]
        if is_refillable(cache := getattr(out, "past_key_values", None)):
            slots = Slots(cache, len(self._read), width, max(self._longest, width))
            slots.put(slots.rows, cache, sources, width)
            slots.positions = lengths[sources]
            self._slots = slots
        return last[sources]

    def _refuse(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        if not len(rows) or len(rows) != len(tokens):
            raise ValueError(
                f"{len(rows)} rows came with {len(tokens)} tokens; each of at least one row needs "
                "its next token."
            )
        count, known = len(self._read), len(self._head.weight)
        if not all(0 <= row < count for row in rows):
            raise ValueError(f"rows {list(rows)} came; there are rows 0 to {count - 1}.")
        if not all(0 <= token < known for token in tokens):
            raise ValueError(f"tokens {list(tokens)} came; the model knows 0 to {known - 1}.")
        if max(len(self._read[row]) for row in rows) >= self._longest:
            raise ValueError(
                "a row is as long as max_new_tokens allows and was to be extended; drop the rows "
                "that have ended."
            )
