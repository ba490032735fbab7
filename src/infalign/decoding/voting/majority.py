"""Majority vote: sample N, answer what most of them say."""

import dataclasses
from typing import final

import numpy as np

from infalign.decoding.counts import refuse_candidates_count, refuse_count
from infalign.decoding.text_procedure import Decoded, Draw, Steps, TextProcedure
from infalign.decoding.voting.choosing import shares, vote
from infalign.decoding.voting.extracting import Extract, extract_from_name
from infalign.prompts import Prompt
from infalign.protocols import Response

__all__ = ["MajorityVote"]


@final
@dataclasses.dataclass(frozen=True)
class MajorityVote(TextProcedure):
    """Sample N, answer with one of those that say what most of them say. Needs no reward.

    The key κ(y) of a response is what it says; keys of equal count are equally likely to win. With
    `at_once` below N, sampling stops as soon as no other key can catch up: the law of the answer is
    the same, the budget is less. What it makes of a law over keys is known exactly:
    :class:`infalign.quantile.atoms.voting.MajorityVote`.

    Args:
        n: N ≥ 1.
        extract: κ, a function or one of `EXTRACT_NAMES`; a text of which it says None abstains.
        at_once: responses asked for at a time, ≥ 1; None: all N.

    Raises:
        ValueError: an N or `at_once` that is not a count, or an unknown name.

    Reference:
        Self-Consistency Improves Chain of Thought Reasoning in Language Models (arXiv:2203.11171).

    Example:
        >>> MajorityVote(8, extract="last_number").name
        'majority-of-8'
    """

    n: int
    """N."""
    extract: Extract | str = "text"
    """κ."""
    at_once: int | None = None
    """Responses asked for at a time; None: all."""

    def __post_init__(self) -> None:
        refuse_candidates_count(self.n, "majority vote")
        if self.at_once is not None:
            refuse_count(self.at_once, "at_once", "majority vote")
        if isinstance(self.extract, str):
            extract_from_name(self.extract)

    @property
    def name(self) -> str:
        return f"majority-of-{self.n}"

    @property
    def most(self) -> int:
        return self.n

    @property
    def needs_reward(self) -> bool:
        return False

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        key = extract_from_name(self.extract) if isinstance(self.extract, str) else self.extract
        candidates: list[Response] = []
        keys: list[str | None] = []
        while len(candidates) < self.n and not self._is_settled(keys):
            k = min(self.at_once or self.n, self.n - len(candidates))
            drawn = (yield Draw(k))[0]
            candidates += drawn
            keys += [key(response.text) for response in drawn]
        ones = np.ones(len(keys))
        index = vote(keys, ones, rng)
        counts = {str(said): int(count) for said, count in shares(keys, ones).items()}
        return Decoded(
            prompt.id,
            candidates[index].text,
            index,
            tuple(candidates),
            (float("nan"),) * len(candidates),
            details={"votes": counts},
        )

    def _is_settled(self, keys: list[str | None]) -> bool:
        """Whether the first key leads by more than there are votes to come."""
        counts = [*sorted(shares(keys, np.ones(len(keys))).values(), reverse=True), 0.0, 0.0]
        return counts[0] - counts[1] > self.n - len(keys)
