"""Resamplers: which part of a response is erased and written again by the policy.

What is erased is chosen without looking at it, uniformly among c(y) parts; then writing it again is
reversible with respect to the policy, and a kernel needs only c(y) to correct for the choice.
"""

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.decoding.counts import refuse_count
from infalign.decoding.text_procedure import Draw
from infalign.protocols import Response

__all__ = ["MaskResample", "Resampler", "SuffixResample"]


class Resampler(ABC):
    """Erases parts of responses. Members are frozen dataclasses; fields are their identity."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human."""

    @property
    def needs_beginnings(self) -> bool:
        """Whether the policy must go on from beginnings."""
        return False

    @property
    def needs_gaps(self) -> bool:
        """Whether the policy must fill gaps."""
        return False

    @abstractmethod
    def draw(self, states: Sequence[Response], k: int, rng: np.random.Generator) -> Draw:
        """Erase a part of each of M states, and ask for k new ones in its place.

        Raises:
            ValueError: a state without tokens, or with fewer than there are to be erased.
        """

    @abstractmethod
    def choices(self, state: Response) -> list[tuple[int | None, ...]]:
        """What may be left of a state, each as likely as the other: for exact sums."""

    @abstractmethod
    def log_choices(self, states: Sequence[Response]) -> Float[np.ndarray, "M"]:
        """log c(y) of each state, up to a constant."""


@final
@dataclasses.dataclass(frozen=True)
class SuffixResample(Resampler):
    """Keeps the first i tokens, i uniform on {0, b, 2b, …} below |y|: for causal models.

    c(y) = ⌈|y|/b⌉, |y| with end-of-sequence counted. Since every response has at least one token,
    i = 0 redraws all of it, and a shorter response never loses the way back.

    Args:
        block: b, tokens. Above 1 fewer different beginnings are met, which some servers reuse.

    Example:
        >>> SuffixResample(block=2).choices(Response("abc", (5, 6, 7)))
        [(), (5, 6)]
    """

    block: int = 1
    """b. ≥ 1."""

    def __post_init__(self) -> None:
        refuse_count(self.block, "block", "SuffixResample")

    @property
    def name(self) -> str:
        return "suffix" if self.block == 1 else f"suffix in blocks of {self.block}"

    @property
    def needs_beginnings(self) -> bool:
        return True

    def draw(self, states: Sequence[Response], k: int, rng: np.random.Generator) -> Draw:
        counts = self._counts(states)
        kept = self.block * np.minimum((rng.random(len(states)) * counts).astype(int), counts - 1)
        beginnings = (state.token_ids[:i] for state, i in zip(states, kept.tolist(), strict=True))
        return Draw(k, tuple(beginnings))

    def choices(self, state: Response) -> list[tuple[int | None, ...]]:
        return [state.token_ids[:i] for i in range(0, len(state.token_ids), self.block)]

    def log_choices(self, states: Sequence[Response]) -> Float[np.ndarray, "M"]:
        return np.log(self._counts(states))

    def _counts(self, states: Sequence[Response]) -> np.ndarray:
        return np.ceil(_lengths(states) / self.block).astype(int)


@final
@dataclasses.dataclass(frozen=True)
class MaskResample(Resampler):
    """Erases k sites, a uniform set of that size: for masked models.

    Args:
        sites: k. ≥ 1.
        fraction: k as a share of the response's length, at least one site; in place of `sites`.

    Raises:
        ValueError: neither or both, a count below 1, a share outside (0, 1].

    Example:
        >>> MaskResample(2).choices(Response("abc", (5, 6, 7)))
        [(None, None, 7), (None, 6, None), (5, None, None)]
    """

    sites: int | None = None
    """k. None: by `fraction`."""
    fraction: float | None = None
    """k/|y|, in (0, 1]. None: by `sites`."""

    def __post_init__(self) -> None:
        if (self.sites is None) == (self.fraction is None):
            raise ValueError(
                f"sites is {self.sites} and fraction {self.fraction}; give one of them, how many "
                "sites are erased or which share."
            )
        if self.sites is not None:
            refuse_count(self.sites, "sites", "MaskResample")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}; a share in (0, 1] is erased.")

    @property
    def name(self) -> str:
        return f"mask {self.sites or self.fraction}"

    @property
    def needs_gaps(self) -> bool:
        return True

    def draw(self, states: Sequence[Response], k: int, rng: np.random.Generator) -> Draw:
        lengths = _lengths(states)
        heights = rng.random((len(states), int(lengths.max())))
        heights[np.arange(heights.shape[1]) >= lengths[:, None]] = 2.0
        order = heights.argsort(axis=1).tolist()
        erased = []
        for state, sites, length in zip(states, order, lengths.tolist(), strict=True):
            left: list[int | None] = list(state.token_ids)
            for site in sites[: self._count(length)]:
                left[site] = None
            erased.append(tuple(left))
        return Draw(k, erased=tuple(erased))

    def choices(self, state: Response) -> list[tuple[int | None, ...]]:
        ids = state.token_ids
        gaps = itertools.combinations(range(len(ids)), self._count(len(ids)))
        return [tuple(None if i in gap else t for i, t in enumerate(ids)) for gap in gaps]

    def log_choices(self, states: Sequence[Response]) -> Float[np.ndarray, "M"]:
        pairs = [(length, self._count(length)) for length in _lengths(states).tolist()]
        return np.log([math.comb(*pair) for pair in pairs])

    def _count(self, length: int) -> int:
        count = self.sites or max(1, round((self.fraction or 0.0) * length))
        if count > length:
            raise ValueError(
                f"{count} sites are to be erased of a response of {length} tokens; erase fewer."
            )
        return count


def _lengths(states: Sequence[Response]) -> np.ndarray:
    lengths = np.array([len(state.token_ids) for state in states])
    if (lengths == 0).any():
        raise ValueError(
            f"response {states[int(lengths.argmin())].text[:40]!r} came without token ids; a chain "
            "erases tokens. Use a policy that tells them."
        )
    return lengths
