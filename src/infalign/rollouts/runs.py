"""Runs: which samples of which prompts a store holds, as intervals on one line.

Sample i of the prompt numbered n lies at place n·2³² + i. What a shard holds of a prompt is then a
few intervals, most often one, however many samples that is; "which are missing", "how many" and
"where do they stand" are searches among sorted numbers, for all prompts at once.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int

__all__ = ["LINE", "OverlapError", "Pieces", "Runs", "expanded"]

LINE = 1 << 32
"""Places of one prompt."""


class OverlapError(ValueError):
    """Two runs hold the same place."""

    def __init__(self, place: int, shards: tuple[int, int]) -> None:
        super().__init__(f"place {place} is held by shards {shards}")
        self.place, self.shards = place, shards


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """Where the places asked for stand: stretches of rows of shards."""

    shard: Int[np.ndarray, "M"]
    row: Int[np.ndarray, "M"]
    """First row in the shard."""
    count: Int[np.ndarray, "M"]
    target: Int[np.ndarray, "M"]
    """Where the first of them stood among the places asked for."""

    def by_shard(self) -> Iterator[tuple[int, Int[np.ndarray, "R"], Int[np.ndarray, "R"]]]:
        """For each shard: its number, rows, and where these belong."""
        order = np.argsort(self.shard, kind="stable")
        numbers, first = np.unique(self.shard[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(order, first[1:]), strict=False):
            count = self.count[part]
            yield number, expanded(self.row[part], count), expanded(self.target[part], count)


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Disjoint intervals, ascending, each with the shard it stands in and its first row there."""

    begin: Int[np.ndarray, "R"]
    end: Int[np.ndarray, "R"]
    """One past the last place."""
    shard: Int[np.ndarray, "R"]
    row: Int[np.ndarray, "R"]

    @classmethod
    def of(cls, begin: np.ndarray, end: np.ndarray, shard: np.ndarray, row: np.ndarray) -> "Runs":
        """Sorted.

        Raises:
            OverlapError: if two of them share a place.
        """
        order = np.argsort(begin, kind="stable")
        runs = cls(begin[order], end[order], shard[order], row[order])
        clash = np.flatnonzero(runs.end[:-1] > runs.begin[1:])
        if len(clash):
            i = clash[0]
            raise OverlapError(int(runs.begin[i + 1]), (int(runs.shard[i]), int(runs.shard[i + 1])))
        return runs

    @classmethod
    def none(cls) -> "Runs":
        """Nothing held."""
        return cls.block(np.empty(0, np.int64), (), 0)

    @classmethod
    def block(cls, numbers: Int[np.ndarray, "P"], samples: Sequence[int], shard: int) -> "Runs":
        """A shard that holds the same samples of each prompt, one prompt after the other."""
        each = np.asarray(samples, dtype=np.int64)
        head = np.flatnonzero(np.diff(each, prepend=-2) != 1)
        count = np.diff(head, append=len(each))
        row = np.arange(len(numbers))[:, None] * len(each) + head
        begin = numbers[:, None] * LINE + each[head]
        which = np.full(begin.size, shard, np.int32)
        return cls.of(begin.ravel(), (begin + count).ravel(), which, row.astype(np.int32).ravel())

    def __add__(self, other: "Runs") -> "Runs":
        mine, theirs = ((r.begin, r.end, r.shard, r.row) for r in (self, other))
        return Runs.of(*(np.concatenate(pair) for pair in zip(mine, theirs, strict=True)))

    @cached_property
    def joined(self) -> tuple[Int[np.ndarray, "J"], Int[np.ndarray, "J"]]:
        """Begins and ends, touching runs joined."""
        if not len(self.begin):
            return self.begin, self.end
        gap = self.begin[1:] != self.end[:-1]
        return self.begin[np.append(True, gap)], self.end[np.append(gap, True)]

    def counts(self, numbers: Int[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
        """How many samples of each prompt are held."""
        total = np.concatenate([[0], np.cumsum(self.end - self.begin)])
        low, high = (np.searchsorted(self.begin, (numbers + i) * LINE) for i in (0, 1))
        return total[high] - total[low]

    def prefix(self, numbers: Int[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
        """How many of the samples 0, 1, … are held before the first that is not."""
        begin, end = (np.concatenate([[-LINE], part]) for part in self.joined)
        start = np.maximum(numbers, 0) * LINE
        at = np.searchsorted(begin, start, side="right") - 1
        return np.where((begin[at] == start) & (numbers >= 0), end[at] - start, 0)

    def samples(self, number: int) -> set[int]:
        """The samples of one prompt."""
        begin, end = self.intervals(np.array([number]))
        start = number * LINE
        return {i for a, b in zip(begin, end, strict=True) for i in range(a - start, b - start)}

    def intervals(self, numbers: Int[np.ndarray, "P"]) -> tuple[np.ndarray, np.ndarray]:
        """Joined intervals of the prompts, in the prompts' order."""
        begin, end = self.joined
        low, high = (np.searchsorted(begin, (numbers + i) * LINE) for i in (0, 1))
        at = expanded(low, high - low)
        return begin[at], end[at]

    def cover(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Whether all places of each interval are held."""
        if not len(self.begin):
            return np.zeros(len(begin), dtype=bool)
        starts, ends = self.joined
        at = np.searchsorted(starts, begin, side="right") - 1
        return (at >= 0) & (end <= ends[at])

    def pieces(self, begin: np.ndarray, end: np.ndarray) -> Pieces:
        """Where what is held of the intervals stands."""
        low = np.searchsorted(self.end, begin, side="right")
        high = np.maximum(np.searchsorted(self.begin, end, side="left"), low)
        asked, run = np.repeat(np.arange(len(begin)), high - low), expanded(low, high - low)
        first = np.maximum(self.begin[run], begin[asked])
        count = np.minimum(self.end[run], end[asked]) - first
        target = (np.cumsum(end - begin) - (end - begin))[asked] + first - begin[asked]
        return Pieces(self.shard[run], self.row[run] + first - self.begin[run], count, target)


def expanded(start: np.ndarray, count: np.ndarray) -> Int[np.ndarray, "N"]:
    """start, start + 1, … start + count − 1 of each pair, one after the other.

    Example:
        >>> expanded(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    before = np.cumsum(count) - count
    return np.repeat(start - before, count) + np.arange(int(count.sum()))
