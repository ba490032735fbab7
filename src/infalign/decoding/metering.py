"""What a procedure has sampled so far, while it runs: what a progress bar shows."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import final

from infalign.decoding.text_procedure import Budget, Draw, TextProcedure
from infalign.decoding.watching import Watched, Watcher
from infalign.protocols import Response

__all__ = ["Meter", "Metered", "cost_of"]


class Meter:
    """Counts responses and new tokens.

    Args:
        told: called after each count.
    """

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.spent = Budget(0, 0)
        """So far."""
        self._told = told

    def add(self, cost: Budget) -> None:
        """Count it."""
        spent = self.spent
        self.spent = Budget(spent.responses + cost.responses, spent.tokens + cost.tokens)
        self._told()

    def count(self, wish: Draw, drawn: Sequence[Sequence[Response]]) -> None:
        """Count what a draw gave."""
        self.add(cost_of(wish, drawn))


@final
@dataclasses.dataclass(frozen=True)
class Metered(Watched):
    """The same procedure, with what it draws counted."""

    procedure: TextProcedure
    """Answers."""
    meter: Meter
    """Told of every draw."""

    def watcher(self) -> Watcher:
        return self.meter.count


def cost_of(wish: Draw, drawn: Sequence[Sequence[Response]]) -> Budget:
    """Responses drawn, and of their tokens the new ones: what was kept is not among them.

    Example:
        >>> cost_of(Draw(1, ((5, 6),)), [[Response("abc", (5, 6, 7))]])
        Budget(responses=1, tokens=1)
        >>> cost_of(Draw(2, erased=((5, None),)), [[Response("a", (5, 6))] * 2])
        Budget(responses=2, tokens=2)
    """
    given = [sum(i is not None for i in row) for row in wish.erased or wish.beginnings]
    tokens = sum(
        len(response.token_ids) - known
        for known, row in zip(given, drawn, strict=True)
        for response in row
    )
    return Budget(sum(map(len, drawn)), max(0, tokens))
