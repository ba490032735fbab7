"""What a store holds, and what it lacks: the folder's shards, checked and indexed.

The index is rebuilt from the shards themselves whenever a store is opened or about to be written;
there is no second record of what is there that could disagree with what is.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from infalign.prompts import Prompt
from infalign.rollouts.shards import explained, is_intact

__all__ = ["MAKER", "Held", "Index"]

MAKER = b"reward_fingerprint"
"""Parquet metadata key of a reward shard: which reward made it, where the reward says so."""

Held = dict[str, dict[int, Path]]
"""prompt id → sample → the shard that holds it."""

Groups = Iterator[tuple[tuple[int, ...], list[Prompt]]]
"""(samples, the prompts that lack exactly these)."""


class Index:
    """The shards of the store at `path`, those with altered bytes set aside with a warning."""

    def __init__(self, path: Path) -> None:
        """Check and read all shards.

        Raises:
            ValueError: if two shards hold the same rollout or reward.
        """
        self.path = path
        self.texts: dict[str, str] = {}
        self.rollouts: Held = defaultdict(dict)
        self.rewards: dict[str, Held] = defaultdict(lambda: defaultdict(dict))
        self.makers: dict[str, str | None] = {}
        # Rewards are listed first: a writer at work adds a rollout before its reward, never after.
        reward_shards = list(self._intact("rewards"))
        for shard in self._intact("rollouts"):
            self.add_rollouts(shard)
        for shard in reward_shards:
            self.add_rewards(shard)

    def add_rollouts(self, shard: Path) -> None:
        """Take a shard of rollouts in."""
        table = pq.read_table(shard, columns=["prompt_id", "prompt", "sample"])
        for row in table.to_pylist():
            self.texts[row["prompt_id"]] = row["prompt"]
            _enter(self.rollouts, row["prompt_id"], row["sample"], shard)

    def add_rewards(self, shard: Path) -> None:
        """Take a shard of rewards in, unless a rollout it belongs to is gone."""
        table = pq.read_table(shard, columns=["prompt_id", "sample", "reward_name"])
        rows = table.to_pylist()
        if any(row["sample"] not in self.rollouts.get(row["prompt_id"], {}) for row in rows):
            self._set_aside(shard, "a rollout whose reward it holds is gone")
            return
        maker = (table.schema.metadata or {}).get(MAKER)
        for row in rows:
            name = row["reward_name"]
            self.makers[name] = maker.decode() if maker else None
            _enter(self.rewards[name], row["prompt_id"], row["sample"], shard)

    def missing(self, prompts: Sequence[Prompt], k: int) -> Groups:
        """Which of the samples 0..k−1 are yet to be drawn."""
        return _grouped(
            (prompt, set(range(k)) - self.rollouts.get(prompt.id, {}).keys()) for prompt in prompts
        )

    def unscored(self, name: str, prompts: Sequence[Prompt]) -> Groups:
        """Which rollouts have no reward `name` yet."""
        held = self.rewards.get(name, {})
        return _grouped(
            (prompt, self.rollouts.get(prompt.id, {}).keys() - held.get(prompt.id, {}).keys())
            for prompt in prompts
        )

    def common_count(self, held: Held, prompts: Sequence[Prompt], k: int | None, what: str) -> int:
        """`k` if every prompt has its first k, or how many all have when `k` is None.

        Raises:
            ValueError: naming the first prompt that has fewer, or another number.
        """
        counts = [len(held.get(prompt.id, ())) for prompt in prompts]
        if k is None and len(set(counts)) > 1:
            raise ValueError(
                f"{self.path} has unequally many {what}: {min(counts)} to {max(counts)} per "
                f"prompt. Make the rest first, or ask for `k={min(counts)}` of each."
            )
        k = max(counts[:1], default=0) if k is None else k
        for prompt in prompts:
            there = held.get(prompt.id, {}).keys()
            if not there or set(range(k)) - there:
                raise ValueError(
                    f"{self.path} has {len(there)} {what} of prompt {prompt.id} where the first "
                    f"{max(k, 1)} are needed. Make them first: collect rollouts, then score them."
                )
        return k

    def _intact(self, folder: str) -> Iterator[Path]:
        for shard in sorted((self.path / folder).glob("*.parquet")):
            if is_intact(shard):
                yield shard
            else:
                self._set_aside(shard, "its bytes are not those that were written")

    def _set_aside(self, shard: Path, why: str) -> None:
        aside = self.path / "damaged" / f"{shard.parent.name}-{shard.name}"
        with explained(f"cannot set the damaged {shard.name} aside", self.path):
            aside.parent.mkdir(exist_ok=True)
            shard.replace(aside)
        warnings.warn(
            f"{shard} was set aside as {aside}: {why}. What it held is made again by the next "
            "run; all other shards are untouched.",
            stacklevel=2,
        )


def _enter(held: Held, prompt_id: str, sample: int, shard: Path) -> None:
    other = held[prompt_id].setdefault(sample, shard)
    if other != shard:
        raise ValueError(
            f"sample {sample} of prompt {prompt_id} stands in two shards, {other} and {shard}, and "
            "nothing says which is right. Remove one of them."
        )


def _grouped(lacking: Iterable[tuple[Prompt, set[int]]]) -> Groups:
    groups: dict[tuple[int, ...], list[Prompt]] = defaultdict(list)
    for prompt, samples in lacking:
        if samples:
            groups[tuple(sorted(samples))].append(prompt)
    return iter(groups.items())
