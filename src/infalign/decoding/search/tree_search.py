"""Best-first search over blocks: go on from the most promising beginning, wherever it stands.

A beam goes forward level by level and forgets; a tree comes back. It pays where an early block
looks best and disappoints later.
"""

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any, final

import numpy as np

from infalign.decoding.counts import refuse_count
from infalign.decoding.metering import Meter
from infalign.decoding.search.guided import (
    ROOT,
    GuidedSearch,
    Node,
    best_of,
    has_ended,
)
from infalign.decoding.text_procedure import Budget, Draw, Score, Steps
from infalign.prompts import Prompt

__all__ = ["TreeSearch"]


@final
@dataclasses.dataclass(frozen=True)
class TreeSearch(GuidedSearch):
    """Expands the beginning of the highest value, `expansions` times; answers with the best whole.

    Each expansion writes `expand` blocks after the beginning. Beginnings that are equal are kept
    once. Where nothing has ended when the expansions are spent, the most promising beginning is
    written to its end `expand` times. No beginning is dropped, not even one worth less than the
    best whole: values are estimates, not bounds.

    Args:
        expansions: beginnings expanded at most. ≥ 1.
        expand: blocks written after each. ≥ 1.

    Raises:
        ValueError: a count that is none, or a value and rollouts at once.

    Reference:
        Tree Search for Language Model Agents (arXiv:2407.01476), best-first by a value.

    Example:
        >>> TreeSearch(expansions=8, expand=4, block=8).most
        36
    """

    expansions: int = 16
    """Beginnings expanded at most."""
    expand: int = 4
    """Blocks written after each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_count(self.expansions, "expansions", "tree search")
        refuse_count(self.expand, "expand", "tree search")

    @property
    def name(self) -> str:
        blocks = "responses" if self.block is None else f"blocks of {self.block}"
        return f"tree search, {self.expansions} × {self.expand} {blocks}"

    @property
    def most(self) -> int:
        """Blocks, those that end what had not ended, and the rollouts."""
        blocks = self.expansions * self.expand
        return blocks * (1 + self.rollouts) + self.expand

    def most_within(self, longest: int) -> Budget:
        """A block for each expansion's children, then one beginning written to its end."""
        block = longest if self.block is None else min(self.block, longest)
        blocks, rest = self.expansions * self.expand, longest - block
        tokens = blocks * (block + self.rollouts * rest) + self.expand * rest
        return Budget(self.most, tokens)

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        meter, ended = Meter(), list[Node]()
        open_, seen, used = [ROOT], {ROOT.response.token_ids}, 0
        while open_ and used < self.expansions:
            best = open_.pop(best_of([node.value for node in open_], rng))
            (row,) = yield from self.grown([best], self.expand, meter)
            nodes = yield from self.judged(row, prompt, meter)
            ended += [node for node in nodes if has_ended(node.response)]
            for node in nodes:
                if not has_ended(node.response) and node.response.token_ids not in seen:
                    seen.add(node.response.token_ids)
                    open_.append(node)
            used += 1
        if not ended:
            ended = yield from self._completed(open_, prompt, meter)
        ended = yield from self.rewarded(ended, prompt)
        index = best_of([self.score(node) for node in ended], rng)
        return self.decoded(prompt, ended, index, meter, expansions=used, open=len(open_))

    def _completed(
        self, open_: Sequence[Node], prompt: Prompt, meter: Meter
    ) -> Generator[Draw | Score, Any, list[Node]]:
        """The most promising beginning, written to its end `expand` times."""
        best = max(open_, key=lambda node: node.value)
        (row,) = yield from dataclasses.replace(self, block=None).grown([best], self.expand, meter)
        return (yield from self.judged(row, prompt, meter))
