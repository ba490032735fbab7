"""What a store holds, and what it lacks, in memory that grows with prompts and not with rows.

The index is made from the shards themselves (see :mod:`infalign.rollouts.contents`) whenever a
store is opened or about to be written; no record of what is there can disagree with what is.
"""

import warnings
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from infalign.prompts import Prompt
from infalign.rollouts import contents
from infalign.rollouts.runs import LINE, OverlapError, Runs
from infalign.rollouts.shards import explained

__all__ = ["Index"]


class Index:
    """The shards of the store at `path`, those with altered bytes set aside with a warning."""

    def __init__(self, path: Path, remember: bool = False) -> None:
        """Take in all shards, reading those whose content is not remembered.

        Args:
            path: the store.
            remember: save what was found, so that the next opening need not read it. For the
                store's one writer.

        Raises:
            ValueError: if two shards hold the same rollout or reward.
        """
        self.path = path
        self.ids: list[str] = []
        """Prompt ids, by the prompts' numbers."""
        self.numbers: dict[str, int] = {}
        self.texts = array("q")
        """Digests of the prompts' texts, by their numbers."""
        self.shards: list[str] = []
        """Paths within the store, by the shards' numbers."""
        self.rollouts = Runs.none()
        self.rewards: dict[str, Runs] = {}
        self.makers: dict[str, str | None] = {}
        looked = contents.now()
        runs, remembered = self._read()
        if remember:
            contents.save(path, runs, remembered, looked)
        self._take_in(runs)

    def numbers_of(self, prompts: Sequence[Prompt]) -> Int[np.ndarray, "P"]:
        """The prompts' numbers, −1 for those that have no rollouts."""
        found = (self.numbers.get(prompt.id, -1) for prompt in prompts)
        return np.fromiter(found, np.int64, len(prompts))

    def missing(self, prompts: Sequence[Prompt], k: int) -> list[tuple[int, ...]]:
        """Which of the samples 0..k−1 of each prompt are yet to be drawn."""
        numbers = self.numbers_of(prompts)
        prefix, count = self.rollouts.prefix(numbers), self.rollouts.counts(numbers)
        rest = {start: tuple(range(start, k)) for start in np.unique(prefix).tolist()}
        return [
            rest[start] if start in (held, k) else self._absent(number, k)
            for number, start, held in zip(
                numbers.tolist(), np.minimum(prefix, k).tolist(), count.tolist(), strict=True
            )
        ]

    def unscored(self, name: str, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Which rollouts of each prompt have no reward `name` yet."""
        numbers, scored = self.numbers_of(prompts), self.rewards.get(name, Runs.none())
        here, there = self.rollouts.counts(numbers), scored.counts(numbers)
        prefix = self.rollouts.prefix(numbers)
        everything = {count: tuple(range(count)) for count in np.unique(here).tolist()}
        plain = (there == 0) & (prefix == here)
        return [
            ()
            if a == b
            else everything[a]
            if all_of_it
            else tuple(sorted(self.rollouts.samples(number) - scored.samples(number)))
            for number, a, b, all_of_it in zip(
                numbers.tolist(), here.tolist(), there.tolist(), plain.tolist(), strict=True
            )
        ]

    def common_count(self, held: Runs, prompts: Sequence[Prompt], k: int | None, what: str) -> int:
        """`k` if every prompt has its first k, or how many all have when `k` is None.

        Raises:
            ValueError: naming the first prompt that has fewer, or another number.
        """
        numbers = self.numbers_of(prompts)
        counts = held.counts(numbers)
        if k is None and len(counts) and counts.min() < counts.max():
            raise ValueError(
                f"{self.path} has unequally many {what}: {counts.min()} to {counts.max()} per "
                f"prompt. Make the rest first, or ask for `k={counts.min()}` of each."
            )
        k = int(max(counts[:1], default=0)) if k is None else k
        short = np.flatnonzero((counts == 0) | (held.prefix(numbers) < k))
        if len(short):
            raise ValueError(
                f"{self.path} has {counts[short[0]]} {what} of prompt {prompts[short[0]].id} where "
                f"the first {max(k, 1)} are needed. Make them first: collect rollouts, then score "
                "them."
            )
        return k

    def require_new_rollouts(self, prompts: Sequence[Prompt], samples: Sequence[int]) -> None:
        """Refuse to add rollouts that are there.

        Raises:
            ValueError: naming one of them.
        """
        self._require_new(self.rollouts, prompts, samples, "rollouts")

    def require_new_rewards(
        self, name: str, prompts: Sequence[Prompt], samples: Sequence[int]
    ) -> None:
        """Refuse to add rewards that are there, or of rollouts that are not.

        Raises:
            ValueError: naming one of them.
        """
        self._require_new(
            self.rewards.get(name, Runs.none()), prompts, samples, f"'{name}' rewards"
        )
        block = Runs.block(self.numbers_of(prompts), samples, 0)
        lacking = np.flatnonzero(~self.rollouts.cover(block.begin, block.end))
        if len(lacking):
            number = int(block.begin[lacking[0]]) // LINE
            which = self.ids[number] if number >= 0 else "that is not in the store"
            raise ValueError(
                f"'{name}' rewards were given for a prompt {which}, of which {self.path} lacks "
                f"some of the rollouts {list(samples)[:8]}. Add the rollouts first."
            )

    def add_rollouts(self, shard: Path, prompts: Sequence[Prompt], samples: Sequence[int]) -> None:
        """Take in a shard of the same samples of each prompt, prompt by prompt."""
        for prompt in prompts:
            if prompt.id not in self.numbers:
                self._number(prompt.id, contents.digest_of(prompt.text))
        self.rollouts += self._block(shard, prompts, samples)

    def add_rewards(
        self,
        name: str,
        maker: str | None,
        shard: Path,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
    ) -> None:
        """Take in a shard of rewards of the same samples of each prompt, prompt by prompt."""
        self.makers[name] = maker
        held = self.rewards.get(name, Runs.none())
        self.rewards[name] = held + self._block(shard, prompts, samples)

    def _block(self, shard: Path, prompts: Sequence[Prompt], samples: Sequence[int]) -> Runs:
        self.shards.append(f"{shard.parent.name}/{shard.name}")
        return Runs.block(self.numbers_of(prompts), samples, len(self.shards) - 1)

    def _require_new(
        self, held: Runs, prompts: Sequence[Prompt], samples: Sequence[int], what: str
    ) -> None:
        for prompt, number in zip(prompts, self.numbers_of(prompts).tolist(), strict=True):
            again = held.samples(number).intersection(samples) if number >= 0 else ()
            if again:
                raise ValueError(
                    f"{self.path} has {what} of prompt {prompt.id}, sample {min(again)}, already. "
                    "Nothing in a store is replaced: add what is missing only."
                )

    def _absent(self, number: int, k: int) -> tuple[int, ...]:
        return tuple(sorted(set(range(k)) - self.rollouts.samples(number)))

    def _number(self, prompt_id: str, text: int) -> None:
        self.numbers[prompt_id] = len(self.ids)
        self.ids.append(prompt_id)
        self.texts.append(text)

    def _read(self) -> tuple[pa.Table, int]:
        """Runs of all intact shards, and how many of them were remembered."""
        found = contents.look(self.path)
        known = contents.load(self.path, found)
        new = []
        for name, signature in contents.unread(found, known):
            try:
                runs = contents.runs_of(self.path, name, signature)
            except FileNotFoundError:  # set aside by another run since it was listed
                continue
            if runs is None:
                self._set_aside(name, "its bytes are not those that were written")
            else:
                new.append(runs)
        if not new:
            return known, len(known)
        both = pa.concat_tables([known, *new]).unify_dictionaries().combine_chunks()
        names, name = _coded(both["file"])
        place = np.argsort(np.argsort(names))
        return both.take(pa.array(np.argsort(place[name], kind="stable"))), len(known)

    def _take_in(self, runs: pa.Table) -> None:
        if not len(runs):
            return
        files, shard = _coded(runs["file"])
        self.shards = files
        of_rollouts = runs["reward"].is_null().to_numpy()
        prompts = runs["prompt"].unify_dictionaries().combine_chunks()
        code = prompts.indices.to_numpy()
        # Numbered as their rollouts lie; prompts that only rewards know get no number.
        seen, first = np.unique(code[of_rollouts], return_index=True)
        seen = seen[np.argsort(first)]
        number = np.full(len(prompts.dictionary), -1)
        number[seen] = np.arange(len(seen))
        number = number[code]
        self.ids = prompts.dictionary.take(pa.array(seen)).to_pylist()
        self.numbers = {prompt_id: i for i, prompt_id in enumerate(self.ids)}
        texts = np.zeros(len(seen), np.int64)
        texts[number[of_rollouts]] = runs["text"].to_numpy()[of_rollouts]
        self.texts = array("q", texts.tobytes())
        begin = number * LINE + runs["sample"].to_numpy()
        end = begin + runs["count"].to_numpy()
        row = runs["row"].to_numpy()

        def part(which: Bool[np.ndarray, "R"]) -> Runs:
            return self._disjoint(begin[which], end[which], shard[which], row[which])

        self.rollouts = part(of_rollouts)
        kept = ~np.isin(shard, self._orphans(begin, end, shard, ~of_rollouts)) & ~of_rollouts
        names, name = _coded(runs["reward"])
        for i, this in enumerate(names):
            which = kept & (name == i)
            if which.any():
                self.rewards[this] = part(which)
                self.makers[this] = runs["maker"][int(np.flatnonzero(which)[-1])].as_py()

    def _orphans(
        self, begin: np.ndarray, end: np.ndarray, shard: np.ndarray, of_rewards: np.ndarray
    ) -> np.ndarray:
        """Reward shards set aside, because a rollout they belong to is not there."""
        covered = self.rollouts.cover(begin[of_rewards], end[of_rewards])
        orphans = np.unique(shard[of_rewards][~covered])
        for number in orphans.tolist():
            self._set_aside(self.shards[number], "a rollout whose reward it holds is gone")
        return orphans

    def _disjoint(
        self, begin: np.ndarray, end: np.ndarray, shard: np.ndarray, row: np.ndarray
    ) -> Runs:
        try:
            return Runs.of(begin, end, shard, row)
        except OverlapError as error:
            one, other = (self.path / self.shards[i] for i in error.shards)
            raise ValueError(
                f"sample {error.place % LINE} of prompt {self.ids[error.place // LINE]} stands in "
                f"two shards, {one} and {other}, and nothing says which is right. Remove one of "
                "them."
            ) from None

    def set_aside(self, name: str) -> Path | None:
        """Move a shard into `damaged/`, which no memory of it survives; None if it is gone.

        Raises:
            OSError: if the folder cannot be written.
        """
        shard = self.path / name
        aside = self.path / "damaged" / f"{shard.parent.name}-{shard.name}"
        with explained(f"cannot set the damaged {shard.name} aside", self.path):
            aside.parent.mkdir(exist_ok=True)
            try:
                return shard.replace(aside)
            except FileNotFoundError:  # another run was first
                return None

    def _set_aside(self, name: str, why: str) -> None:
        shard, aside = self.path / name, self.set_aside(name)
        if aside is None:
            return
        warnings.warn(
            f"{shard} was set aside as {aside}: {why}. What it held is made again by the next "
            "run; all other shards are untouched.",
            stacklevel=2,
        )


def _coded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct values of a dictionary column, and each row's number among them, −1 for null."""
    whole = column.unify_dictionaries().combine_chunks()
    values = whole.dictionary.to_pylist()
    first = {value: i for i, value in enumerate(dict.fromkeys(values))}
    codes = np.array([*(first[value] for value in values), -1], np.int32)
    return list(first), codes[whole.indices.fill_null(-1).to_numpy()]
