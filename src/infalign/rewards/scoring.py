"""Every distinct text is scored once: duplicates share a reward, and recent rewards are kept.

Sampled responses repeat, within a prompt and from one training step to the next. A reward here is
a function of a list of (prompt, response) pairs; what wraps it sees each pair once.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # see `function`
    from jaxtyping import Float

__all__ = ["Pair", "PairScores", "Progress"]

Pair = tuple[str, str]
"""A prompt and a response."""
Progress = Callable[[int, int], None]
"""Told how many distinct pairs are done, and of how many."""


class PairScores:
    """Rewards of distinct (prompt, response) pairs, in batches, with a bounded memory.

    Args:
        score: rewards of a list of pairs.
        batch: pairs per call of `score`.
        memory: how many rewards are kept; the longest unused go first.
    """

    def __init__(
        self,
        score: Callable[[list[Pair]], Sequence[float] | np.ndarray],
        batch: int = 64,
        memory: int = 100_000,
    ) -> None:
        self._score, self._batch, self._memory = score, batch, memory
        self._known: OrderedDict[Pair, float] = OrderedDict()

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> "Float[np.ndarray, 'P K']":
        """Rewards of K responses to each of P prompts.

        Raises:
            ValueError: not one list of responses per prompt, or lists of unequal length.
        """
        counts = {len(row) for row in responses}
        if len(responses) != len(prompts) or len(counts) > 1:
            raise ValueError(
                f"{len(prompts)} prompts came with {len(responses)} lists of {sorted(counts)} "
                "responses; each prompt needs one list and all lists the same length."
            )
        pairs = [(p, r) for p, row in zip(prompts, responses, strict=True) for r in row]
        found = self._look_up(pairs, progress)
        values = np.array([found[pair] for pair in pairs], dtype=np.float64)
        return values.reshape(len(prompts), counts.pop() if counts else 0)

    def _look_up(self, pairs: list[Pair], progress: Progress | None) -> dict[Pair, float]:
        found = {pair: self._known[pair] for pair in set(pairs) if pair in self._known}
        # Batches of like length waste little on padding; ties by text keep the order fixed.
        fresh = sorted({p for p in pairs if p not in found}, key=lambda p: (len(p[0] + p[1]), p))
        for start in range(0, len(fresh), self._batch):
            part = fresh[start : start + self._batch]
            rewards = np.asarray(self._score(part), dtype=np.float64)
            found.update(zip(part, rewards.tolist(), strict=True))
            if progress is not None:
                progress(min(start + self._batch, len(fresh)), len(fresh))
        for pair in pairs:
            self._known[pair] = found[pair]
            self._known.move_to_end(pair)
        while len(self._known) > self._memory:
            self._known.popitem(last=False)
        return found
