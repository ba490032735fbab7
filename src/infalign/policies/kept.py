"""Keys and values of what has been written, kept while its beginnings are gone on from.

A chain rewrites the end of a response again and again, a search grows its best beginnings: what the
body has read of them is worth keeping. Sequences stand in a prefix tree, so that finding one that
begins so takes as many steps as the beginning has tokens; those not asked for longest go first.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, final

import torch

__all__ = ["Kept", "KeptBeginnings"]


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """One sequence's keys and values."""

    tokens: tuple[int, ...]
    """The n tokens they are of."""
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """H n D each."""

    @classmethod
    def of_row(
        cls, tokens: Sequence[int], layers: Sequence[Any], row: int, *, copy: bool = True
    ) -> "Kept":
        """The first columns of one row of a cache; not copied, they change with it and hold it."""
        columns = slice(0, len(tokens))
        parts = ((layer.keys[row, :, columns], layer.values[row, :, columns]) for layer in layers)
        if copy:
            parts = ((keys.clone(), values.clone()) for keys, values in parts)
        return cls(tuple(tokens), tuple(parts))

    @property
    def bytes(self) -> int:
        """Memory they take."""
        return sum(part.nbytes for layer in self.layers for part in layer)

    def fill(self, layers: Sequence[Any], rows: torch.Tensor, length: int) -> None:
        """Write the first `length` columns into rows of a cache."""
        for layer, (keys, values) in zip(layers, self.layers, strict=True):
            layer.keys[rows, :, :length] = keys[None, :, :length]
            layer.values[rows, :, :length] = values[None, :, :length]


class _Node:
    __slots__ = ("children", "kept")

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.kept: Kept | None = None


@final
class KeptBeginnings:
    """Kept sequences, `most_bytes` of them at most, found by how they begin."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._root = _Node()
        self._oldest_first: collections.OrderedDict[tuple[int, ...], Kept] = (
            collections.OrderedDict()
        )

    def __len__(self) -> int:
        return len(self._oldest_first)

    def __contains__(self, tokens: tuple[int, ...]) -> bool:
        return tokens in self._oldest_first

    def find(self, beginning: Sequence[int]) -> Kept | None:
        """A sequence that begins so, if there is one."""
        node = self._root
        for token in beginning:
            if (child := node.children.get(token)) is None:
                return None
            node = child
        while node.kept is None:
            if not node.children:
                return None
            node = next(reversed(node.children.values()))
        self._oldest_first.move_to_end(node.kept.tokens)
        return node.kept

    def add(self, kept: Kept) -> None:
        """Keep one more; the ones not asked for longest make room."""
        if kept.tokens in self._oldest_first:
            return
        node = self._root
        for token in kept.tokens:
            node = node.children.setdefault(token, _Node())
        node.kept = kept
        self._oldest_first[kept.tokens] = kept
        self.bytes += kept.bytes
        while self.bytes > self.most_bytes:
            _, oldest = self._oldest_first.popitem(last=False)
            self._drop(oldest)

    def _drop(self, kept: Kept) -> None:
        self.bytes -= kept.bytes
        path = [self._root]
        for token in kept.tokens:
            path.append(path[-1].children[token])
        path[-1].kept = None
        for token, parent, node in zip(
            reversed(kept.tokens), reversed(path[:-1]), reversed(path[1:]), strict=True
        ):
            if node.children or node.kept is not None:
                break
            del parent.children[token]
