"""A cache of slots: each row holds one sequence from its first token on, and can be given away.

Rows of an ordinary cache share their columns: a new sequence can only start where the others are.
Here each row writes at a position of its own, so that the place of a finished response is free for
another prompt's at once, and nothing is copied but that prompt's keys and values.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

__all__ = ["Slots", "is_refillable"]

_ROUND = 32
"""Columns are allotted in multiples of this."""


def is_refillable(cache: Any) -> bool:
    """Whether a cache filled by a prompt keeps keys and values of every token, and only that.

    Sliding windows, recurrent states, layers that share another's keys or quantise them do not.
    """
    layers = getattr(cache, "layers", None) or ()
    return bool(layers) and all(
        type(layer) is DynamicLayer and layer.keys is not None and layer.keys.ndim == 4
        for layer in layers
    )


class Slots:
    """R rows of keys and values, each with its own sequence.

    Args:
        like: a filled cache of the same model, for shapes and dtype.
        rows: R.
        columns: tokens that each row can hold at first; :meth:`reserve` adds to them.
        limit: tokens that no row will hold more of.
    """

    def __init__(self, like: Any, rows: int, columns: int, limit: int) -> None:
        self.limit, self.columns = limit, min(_rounded(columns), limit)
        self.layers = [_SlotLayer(layer, rows, self.columns, self) for layer in like.layers]
        self.cache = Cache(layers=list(self.layers))
        device = like.layers[0].keys.device
        self.rows = torch.arange(rows, device=device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)
        """Where each row's next token goes: R."""
        self.width = 1
        """Columns that the current step attends to."""

    def reserve(self, columns: int) -> None:
        """Make room for sequences of so many tokens, `limit` at most.

        Room grows by half, so that a sequence that grows token by token is copied a few times in
        all, and what is allotted is at most half more than what is needed.
        """
        if columns <= self.columns:
            return
        self.columns = min(_rounded(max(columns, self.columns * 3 // 2)), self.limit)
        for layer in self.layers:
            layer.reserve(self.columns)

    def put(self, rows: torch.Tensor, prompts: Any, sources: torch.Tensor, width: int) -> None:
        """Give `rows` to the prompts `sources` of a filled cache, whose first `width` columns hold
        them from the left. Positions are the caller's to set."""
        for layer, prompt in zip(self.layers, prompts.layers, strict=True):
            layer.keys[rows, :, :width] = prompt.keys[sources, :, :width]
            layer.values[rows, :, :width] = prompt.values[sources, :, :width]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these, which may be repeated and in any order."""
        self.positions = self.positions[rows]
        self.rows = torch.arange(len(rows), device=rows.device)
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    def mask(self) -> torch.Tensor:
        """Which columns each row attends to in the coming step, its new token's included; they
        are there from now on."""
        self.width = int(self.positions.max()) + 1
        self.reserve(self.width)
        columns = torch.arange(self.width, device=self.positions.device)
        return (columns <= self.positions[:, None]).long()


class _SlotLayer(CacheLayerMixin):
    """One layer's keys and values: R H columns D, written at each row's own position."""

    is_sliding = False

    def __init__(self, like: Any, rows: int, columns: int, slots: Slots) -> None:
        super().__init__()
        self._slots = slots
        self.keys: Any = _empty(like.keys, rows, columns)
        self.values: Any = _empty(like.values, rows, columns)
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the shapes were known from the start."""

    def reserve(self, columns: int) -> None:
        """Widen to so many columns."""
        widen = (0, 0, 0, columns - self.keys.shape[2])
        self.keys = torch.nn.functional.pad(self.keys, widen)
        self.values = torch.nn.functional.pad(self.values, widen)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token of each row; all columns that some row attends to."""
        slots = self._slots
        self.keys[slots.rows, :, slots.positions] = key_states[:, :, 0]
        self.values[slots.rows, :, slots.positions] = value_states[:, :, 0]
        return self.keys[:, :, : slots.width], self.values[:, :, : slots.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns to mask, and the first of them."""
        return self._slots.width - 1 + query_length, 0

    def get_seq_length(self) -> int:
        """As if all rows were as long as the longest; the mask says how long they are."""
        return self._slots.width - 1

    def get_max_length(self) -> int:
        """None."""
        return -1


def _empty(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    # Zeros: what is masked is still multiplied, and a NaN times zero is a NaN.
    return like.new_zeros(rows, like.shape[1], columns, like.shape[3])


def _rounded(columns: int) -> int:
    return -(-columns // _ROUND) * _ROUND
