"""Many token sequences in few rows: a prefix tree, flattened, with an ancestor mask.

Sequences that begin alike (the K responses to one prompt, prompts under one system message,
duplicate responses) need their common beginning computed once. Inserting every sequence into a
prefix tree and letting each node attend to its ancestors and itself does all of that at once: a
tree of T nodes is one row of T tokens, and the hidden state of each node is what the model would
have computed for the sequence that ends there.

The last token of a response is only ever predicted, never read, so it is an edge but no node.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

__all__ = ["PackedRows", "pack"]


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows to run through a model's body, and which next-token probabilities to read off them."""

    input_ids: np.ndarray
    """Tokens, right padded with 0: B T."""
    position_ids: np.ndarray
    """Depth of each node in its tree: B T."""
    mask: np.ndarray | None
    """True where a node may attend: B T T. None: plain sequences, causal attention does."""
    lengths: np.ndarray
    """Nodes per row: B."""
    nodes: np.ndarray
    """Flat positions (into B·T) whose hidden state is read: M."""
    sources: np.ndarray
    """For each distinct prediction, the index into `nodes` it is read from, increasing: E."""
    targets: np.ndarray
    """For each distinct prediction, the token predicted: E."""
    path_responses: np.ndarray
    """For each token of each response, the response's index: S."""
    path_edges: np.ndarray
    """For each token of each response, the index of its prediction: S."""


class _Tree:
    """A prefix tree of tokens, grown one sequence at a time."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self._child: dict[tuple[int, int], int] = {}
        self.edges: dict[tuple[int, int], int] = {}
        self.paths: list[tuple[int, list[int]]] = []

    def missing(self, sequence: Sequence[int]) -> int:
        """How many nodes inserting the sequence would add."""
        node = -1
        for depth, token in enumerate(sequence):
            found = self._child.get((node, token))
            if found is None:
                return len(sequence) - depth
            node = found
        return 0

    def insert(
        self, index: int, context: Sequence[int], response: Sequence[int], start: int = 0
    ) -> None:
        """Add one context with one response, predicted from `start` on, under `index`."""
        node = -1
        for token in context:
            node = self._step(node, token)
        path = []
        for place, token in enumerate(response):
            if place >= start:
                path.append(self.edges.setdefault((node, token), len(self.edges)))
            if place < len(response) - 1:
                node = self._step(node, token)
        self.paths.append((index, path))

    def _step(self, node: int, token: int) -> int:
        child = self._child.get((node, token))
        if child is None:
            child = self._child[node, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(node)
            self.depths.append(0 if node < 0 else self.depths[node] + 1)
        return child


def pack(
    contexts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    row_tokens: int = 512,
    share: bool = True,
    starts: Sequence[int] | None = None,
) -> PackedRows:
    """Pack N contexts, each with one response, into rows of about `row_tokens` nodes.

    Args:
        contexts: prompt tokens, N of at least one each. Neighbours should share prefixes.
        responses: response tokens, N of at least one each.
        row_tokens: a tree is closed before it grows beyond this, unless one sequence alone does.
            Responses to one long prompt may fill a row of twice the prompt's length: that is where
            attention, (P + s·R)² for s responses of R tokens, is least work per response.
        share: False gives each sequence a row of its own, for models that cannot be masked.
        starts: response tokens before these places, N of them, are read and not predicted.
    """
    trees: list[_Tree] = []
    for index, (context, response) in enumerate(zip(contexts, responses, strict=True)):
        read = [*context, *response[:-1]]
        tree = trees[-1] if trees and share else None
        if tree is None or not _fits(tree, read, len(context), row_tokens):
            tree = _Tree()
            trees.append(tree)
        tree.insert(index, context, response, 0 if starts is None else starts[index])
    return _flatten(trees, share)


def _fits(tree: _Tree, read: Sequence[int], context: int, row_tokens: int) -> bool:
    missing = tree.missing(read)
    shares_context = missing <= len(read) - context
    limit = max(row_tokens, 2 * context) if shares_context else row_tokens
    return len(tree.tokens) + missing <= limit


def _flatten(trees: list[_Tree], share: bool) -> PackedRows:
    width = max(len(tree.tokens) for tree in trees)
    input_ids = np.zeros((len(trees), width), np.int64)
    position_ids = np.zeros((len(trees), width), np.int64)
    sources, targets, path_responses, path_edges = [], [], [], []
    offset = 0
    for row, tree in enumerate(trees):
        input_ids[row, : len(tree.tokens)] = tree.tokens
        position_ids[row, : len(tree.tokens)] = tree.depths
        edges = np.array(list(tree.edges), dtype=np.int64).reshape(-1, 2)
        sources.append(edges[:, 0] + row * width)
        targets.append(edges[:, 1])
        for index, path in tree.paths:
            path_responses.append(np.full(len(path), index))
            path_edges.append(np.array(path, dtype=np.int64) + offset)
        offset += len(edges)
    flat_sources = np.concatenate(sources)
    order = np.argsort(flat_sources, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    nodes, source_of = np.unique(flat_sources[order], return_inverse=True)
    return PackedRows(
        input_ids=input_ids,
        position_ids=position_ids,
        mask=_ancestor_masks(trees, width) if share else None,
        lengths=np.array([len(tree.tokens) for tree in trees]),
        nodes=nodes,
        sources=source_of,
        targets=np.concatenate(targets)[order],
        path_responses=np.concatenate(path_responses),
        path_edges=place[np.concatenate(path_edges)],
    )


def _ancestor_masks(trees: list[_Tree], width: int) -> np.ndarray:
    masks = np.zeros((len(trees), width, width), bool)
    for mask, tree in zip(masks, trees, strict=True):
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                mask[node] = mask[parent]
            mask[node, node] = True
        padding = np.arange(len(tree.tokens), width)
        mask[padding, padding] = True  # a row attending to nothing would be NaN
    return masks
