"""A procedure on samples at hand: what it would have answered, had it drawn these.

A procedure that only draws whole responses can be run again and again on subsets of one pool of
samples, at no cost in sampling. One pool thus gives the law of the answer, and for each sample
what the answer was worth with it and without it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.decoding.text_procedure import Decoded, Draw, Ranks, Scored, TextProcedure
from infalign.decoding.voting.bayes_risk import MinimumBayesRisk
from infalign.decoding.voting.choosing import compared
from infalign.prompts import Prompt
from infalign.protocols import Response

__all__ = ["Pool", "balanced_orders", "replay", "replay_all"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """m independent samples of one policy to one prompt, scored."""

    prompt: Prompt
    """What they answer."""
    responses: Sequence[Response]
    """m of them."""
    scored: Scored
    """What the reward says of each of them."""

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """Text → a sample that says so."""
        return {response.text: place for place, response in enumerate(self.responses)}

    def judged(self, texts: Sequence[str]) -> Scored:
        """What the reward says of texts that are samples.

        Raises:
            ValueError: a text that is none.
        """
        unknown = [text for text in texts if text not in self.places]
        if unknown:
            raise ValueError(
                f"a reward was asked for {unknown[0][:60]!r}, which is none of the "
                f"{len(self.responses)} samples at hand; only procedures that score and answer "
                "with whole responses can be replayed."
            )
        at = [self.places[text] for text in texts]
        known, u = self.scored.ranks, self.scored.quantiles
        ranks = None if known is None else Ranks(known.below[at], known.ties[at], known.k)
        return Scored(self.scored.rewards[at], None if u is None else u[at], ranks)


def replay(
    procedure: TextProcedure,
    pool: Pool,
    order: Sequence[int] | Int[np.ndarray, "n"],
    rng: np.random.Generator,
) -> tuple[Decoded, int]:
    """The answer when the samples are drawn in this order, and how many of them were drawn.

    Args:
        procedure: draws whole responses only.
        pool: what is drawn from.
        order: places in the pool, each at most once; at least as many as are drawn.
        rng: of the procedure's own choices.

    Raises:
        ValueError: a procedure that goes on from a beginning, or that draws more than there are.
    """
    steps, reply, drawn = procedure.steps(pool.prompt, rng), None, 0
    while True:
        try:
            wish = steps.send(reply)
        except StopIteration as end:
            return end.value, drawn
        if not isinstance(wish, Draw):
            reply = pool.judged(wish.texts)
            continue
        count = wish.k * len(wish.beginnings)
        if not wish.is_whole or drawn + count > len(order):
            raise ValueError(
                f"{procedure.name} asked for {count} responses after {drawn} of {len(order)} "
                "samples at hand"
                + (", whole ones" if wish.is_whole else " that go on from a beginning")
                + "; sample more, or let it draw for itself."
            )
        places = order[drawn : drawn + count]
        drawn += count
        row = [pool.responses[place] for place in places]
        reply = [row[i : i + wish.k] for i in range(0, count, wish.k)]


def replay_all(
    procedure: TextProcedure,
    pool: Pool,
    orders: Int[np.ndarray, "B n"],
    rng: np.random.Generator,
) -> list[tuple[Decoded, int]]:
    """:func:`replay` in each of the orders.

    Minimum Bayes risk compares the same pairs of answers again and again; where the orders have
    more pairs than the pool, those of the pool are compared instead, once.
    """
    texts = list(pool.places)
    if isinstance(procedure, MinimumBayesRisk) and len(texts) < procedure.n * len(orders) ** 0.5:
        utility = procedure.compares_by
        known = _Known(
            utility.name, {text: i for i, text in enumerate(texts)}, compared(texts, utility)
        )
        procedure = dataclasses.replace(procedure, utility=known)
    return [replay(procedure, pool, order, rng) for order in orders]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """A utility whose values are known."""

    name: str
    places: dict[str, int]
    """Text → row and column."""
    worth: Float[np.ndarray, "C C"]

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "A B"]:
        rows, columns = ([self.places[text] for text in some] for some in (texts, right))
        return self.worth[np.ix_(rows, columns)]


def balanced_orders(m: int, n: int, most: int, rng: np.random.Generator) -> Int[np.ndarray, "B n"]:
    """Orders of n out of m samples, each sample in equally many: n·B/m.

    All subsets, each in a random order, where there are at most `most`; else the m windows of
    random circles, at least one circle: there each sample also stands equally often at each place.

    Example:
        >>> np.sort(balanced_orders(3, 2, 10, np.random.default_rng(0))).tolist()
        [[0, 1], [0, 2], [1, 2]]
        >>> balanced_orders(20, 8, 60, np.random.default_rng(0)).shape
        (60, 8)
    """
    if n > m:
        raise ValueError(f"{n} of {m} samples are wanted; sample at least {n}.")
    if math.comb(m, n) <= most:
        subsets = np.array(list(itertools.combinations(range(m), n)), dtype=int).reshape(-1, n)
        return rng.permuted(subsets, axis=1)
    windows = (np.arange(m)[:, None] + np.arange(n)) % m
    circles = [rng.permutation(m)[windows] for _ in range(max(1, most // m))]
    return np.concatenate(circles)
