"""Blockwise best-of-N: choose among N continuations every B tokens, and go on from the best.

Between best-of-N (one block) and greedy search by the reward (blocks of one token). It spends as
many tokens as best-of-N and chooses more often, so it goes further from the policy; how far it gets
depends on what the reward says of an unfinished text. Where that says little, `rollouts` asks
finished ones instead.
"""

import dataclasses
from collections.abc import Generator
from typing import Any, final

import numpy as np
from jaxtyping import Float

from infalign.decoding.counts import refuse_candidates_count, refuse_count
from infalign.decoding.metering import Meter
from infalign.decoding.selection import pick, refuse_rewards
from infalign.decoding.text_procedure import (
    Budget,
    Decoded,
    Draw,
    Score,
    Scored,
    Steps,
    TextProcedure,
)
from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.procedures import BestOfN

__all__ = ["BlockwiseBestOfN"]


@final
@dataclasses.dataclass(frozen=True)
class BlockwiseBestOfN(TextProcedure):
    """From the best beginning so far draw N continuations of B tokens, keep the best, go on.

    Ends when the one that is kept has ended. With B at least the length cap it is best-of-N. What
    is compared is the reward of the text so far; with `rollouts` m > 0, the mean reward of m
    completions of it, which are thrown away.

    Args:
        n: N ≥ 1.
        block: B ≥ 1, in tokens; None: the whole response, which any policy can do.
        rollouts: m ≥ 0.

    Raises:
        ValueError: an N, B or m that is not a count.

    Reference:
        Controlled Decoding from Language Models (arXiv:2310.17022), whose blocks are compared by a
        value learned from rollouts.

    Example:
        >>> BlockwiseBestOfN(4, block=16).name, BlockwiseBestOfN(4).name
        ('best-of-4 every 16 tokens', 'best-of-4 every response')
    """

    n: int
    """N."""
    block: int | None = None
    """B, in tokens."""
    rollouts: int = 0
    """m, completions that say what an unfinished text is worth; 0: the reward itself does."""

    def __post_init__(self) -> None:
        what = "blockwise best-of-n"
        refuse_candidates_count(self.n, what)
        refuse_count(self.rollouts, "rollouts", what, least=0)
        if self.block is not None:
            refuse_count(self.block, "block", what)

    @property
    def name(self) -> str:
        every = "response" if self.block is None else f"{self.block} tokens"
        return f"best-of-{self.n} every {every}" + (f", m={self.rollouts}" if self.rollouts else "")

    @property
    def most(self) -> int:
        """Per block; how many blocks there are shows only in the end."""
        return self.n * (1 + self.rollouts)

    def most_within(self, longest: int) -> Budget:
        """Every block is drawn N times and completed from its end, m times each.

        Example:
            >>> BlockwiseBestOfN(4, block=16).most_within(64)
            Budget(responses=16, tokens=256)
        """
        ends = range(longest if self.block is None else self.block, longest, self.block or longest)
        rollouts = self.n * self.rollouts
        tokens = self.n * longest + rollouts * sum(longest - end for end in ends)
        return Budget(self.n * (len(ends) + 1) + rollouts * len(ends), tokens)

    @property
    def needs_beginnings(self) -> bool:
        return self.block is not None

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        kept = Response("", finish_reason="limit")
        candidates: list[Response] = []
        starts: list[int] = []
        worths: list[Scored] = []
        meter = Meter()
        while kept.finish_reason == "limit":
            start = len(kept.token_ids)
            draw = Draw(self.n, (kept.token_ids,), self.block)
            (drawn,) = yield draw
            meter.count(draw, [drawn])
            worth = yield from self._worth(drawn, prompt, meter)
            index = len(candidates) + pick(BestOfN(self.n), worth.rewards, rng)
            candidates += drawn
            starts += [start] * self.n
            worths.append(worth)
            kept = candidates[index]
        quantiles = [worth.quantiles for worth in worths if worth.quantiles is not None]
        return Decoded(
            prompt.id,
            kept.text,
            index,  # pyright: ignore[reportPossiblyUnboundVariable]
            tuple(candidates),
            tuple(float(reward) for worth in worths for reward in worth.rewards),
            spent=meter.spent,
            quantiles=tuple(map(float, np.concatenate(quantiles))) if quantiles else None,
            details={"blocks": len(worths), "starts": starts},
        )

    def _worth(
        self, drawn: list[Response], prompt: Prompt, meter: Meter
    ) -> Generator[Draw | Score, Any, Scored]:
        """What each is worth; completions drawn to find out are counted."""
        open_ = [i for i, response in enumerate(drawn) if response.finish_reason == "limit"]
        texts, owners = [one.text for one in drawn], np.arange(len(drawn))
        if self.rollouts and open_:
            draw = Draw(self.rollouts, tuple(drawn[i].token_ids for i in open_))
            completed = yield draw
            meter.count(draw, completed)
            ended = [i for i in range(len(drawn)) if i not in open_]
            texts = [drawn[i].text for i in ended] + [one.text for row in completed for one in row]
            owners = np.array(ended + [i for i in open_ for _ in range(self.rollouts)])
        scored = yield Score(tuple(texts))
        refuse_rewards(scored.rewards, prompt)
        u = None if scored.quantiles is None else _means(scored.quantiles, owners, len(drawn))
        return Scored(_means(scored.rewards, owners, len(drawn)), u)


def _means(
    values: Float[np.ndarray, "T"], owners: Float[np.ndarray, "T"], n: int
) -> Float[np.ndarray, "N"]:
    """Mean of the values that belong to each of n candidates."""
    return np.bincount(owners, values, n) / np.bincount(owners, minlength=n)
