"""The store: a folder of shards that knows whose rollouts it holds.

`store.json` says which policy, sampling law and seed; `rollouts/` and `rewards/` hold the shards
and can be pointed at by pandas, polars, duckdb or `datasets`; `damaged/` receives shards whose
bytes are no longer those that were written; `index.cache` can be deleted at any time.

In memory a store grows with its prompts, by some hundred bytes each, and not with its rows. What a
call returns is read for that call, a shard at a time: to stay within bounds ask for some prompts at
a time, or use :meth:`RolloutStore.batches` and :meth:`RolloutStore.reward_batches`.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampler
from infalign.rollouts.contents import digest_of
from infalign.rollouts.identity import LOCK, identity_of, opened, read_identity, require_same
from infalign.rollouts.index import Index
from infalign.rollouts.reading import Reader
from infalign.rollouts.runs import LINE, Runs, expanded
from infalign.rollouts.shards import content_key, explained, write_atomically, write_shard
from infalign.rollouts.tables import reward_slug, reward_table, rollout_table

__all__ = ["RolloutStore"]


class RolloutStore:
    """Rollouts of one policy at one sampling law and seed, and their rewards.

    Open it with :meth:`open` to add to it, with :meth:`existing` to use it without its policy.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Index the shards in `path`; use :meth:`open` or :meth:`existing` instead."""
        self.path = path
        self.identity = identity
        self._look()
        self._lock = filelock.FileLock(path / LOCK)

    @classmethod
    def open(cls, path: str | Path, policy: Sampler, seed: int) -> "RolloutStore":
        """The store at `path`, made if there is none, for this policy, sampling law and seed.

        Args:
            path: the store's own folder.
            policy: whose rollouts these are. Its name is recorded but does not identify it.
            seed: of the random numbers that draw them. ≥ 0.

        Raises:
            ValueError: if the store holds rollouts of another policy, sampling law or seed; the
                message says what differs.
            OSError: if the folder cannot be written.
            BlockingIOError: if another run holds the lock of a folder without identity.
        """
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or greater.")
        return cls(Path(path), opened(Path(path), identity_of(policy, seed)))

    @classmethod
    def existing(cls, path: str | Path) -> "RolloutStore":
        """The store at `path`, whosever it is: to read or score it without the policy at hand.

        Raises:
            FileNotFoundError: if there is no store.
        """
        return cls(Path(path), read_identity(Path(path)))

    @property
    def seed(self) -> int:
        """Seed of the random numbers that draw the rollouts."""
        return self.identity["seed"]

    @property
    def prompt_ids(self) -> tuple[str, ...]:
        """Ids of the prompts that have rollouts, sorted."""
        return tuple(sorted(self.index.ids))

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Rewards the store has values of, sorted."""
        return tuple(sorted(self.index.rewards))

    def require(self, policy: Sampler, seed: int) -> None:
        """Refuse a policy, sampling law or seed other than the store's.

        Raises:
            ValueError: saying what differs, value by value.
        """
        require_same(self.path, self.identity, identity_of(policy, seed))

    def require_texts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that were answered as another text, say under another chat template.

        Raises:
            ValueError: naming the first such prompt.
        """
        index = self.index
        for prompt, number in zip(prompts, index.numbers_of(prompts).tolist(), strict=True):
            if number >= 0 and index.texts[number] != digest_of(prompt.text):
                stored = self._reader.column("prompt", np.array([number * LINE]))[0]
                raise ValueError(
                    f"prompt {prompt.id} was answered in {self.path} as ...{stored[-60:]!r} and "
                    f"is now ...{prompt.text[-60:]!r}. Rendered by another chat template it is "
                    "another question: use another folder, or the same template."
                )

    def counts(self, prompts: Sequence[Prompt]) -> Int[np.ndarray, "P"]:
        """How many rollouts of each prompt there are."""
        return self.index.rollouts.counts(self.index.numbers_of(prompts))

    def token_count(self, prompts: Sequence[Prompt]) -> int:
        """How many tokens the rollouts of the prompts have together."""
        return self._reader.token_count(self.index.numbers_of(prompts))

    def responses(self, prompts: Sequence[Prompt], k: int | None = None) -> list[list[Response]]:
        """P lists of the prompts' rollouts, in the order they were drawn.

        Args:
            prompts: in the order wanted. In the order they were drawn, each shard is read once.
            k: the first k of each; all by default, which must then be equally many.

        Raises:
            ValueError: if a prompt has too few rollouts, or they are unequally many.
        """
        self.require_texts(prompts)
        held = self.index.rollouts
        k = self.index.common_count(held, prompts, k, "rollouts")
        begin = self.index.numbers_of(prompts) * LINE
        table = self._reader.rows(
            begin, begin + k, ["text", "token_ids", "log_prob", "finish_reason"]
        )
        cells = zip(*(column.to_pylist() for column in table.columns), strict=True)
        rows = [Response(text, tuple(ids), *rest) for text, ids, *rest in cells]
        return [rows[i * k : (i + 1) * k] for i in range(len(prompts))]

    def texts(self, prompts: Sequence[Prompt], samples: Sequence[int]) -> list[list[str]]:
        """What the given samples of each prompt say; they must be there."""
        places = self.index.numbers_of(prompts)[:, None] * LINE + np.asarray(samples, np.int64)
        texts = self._reader.column("text", places.ravel())
        return [texts[i * len(samples) : (i + 1) * len(samples)] for i in range(len(prompts))]

    def rewards(
        self, name: str, prompts: Sequence[Prompt], k: int | None = None
    ) -> Float[np.ndarray, "P K"]:
        """Rewards `name` of the prompts' rollouts, in the order they were drawn.

        Raises:
            ValueError: if a prompt has too few rewards, or they are unequally many.
        """
        held = self.index.rewards.get(name, Runs.none())
        k = self.index.common_count(held, prompts, k, f"'{name}' rewards")
        begin = self.index.numbers_of(prompts) * LINE
        return self._reader.rewards(name, begin, begin + k).reshape(len(prompts), k)

    def reward_batches(
        self, name: str, k: int | None = None, size: int = 1024
    ) -> Iterator[tuple[list[str], Float[np.ndarray, "P K"]]]:
        """Rewards `name` of all prompts, `size` prompts at a time, as they lie in the store.

        Yields:
            Prompt ids, and the first k rewards of each; all by default, then equally many within
            a batch.

        Raises:
            ValueError: as :meth:`rewards`.
        """
        for start in range(0, len(self.index.ids), size):
            ids = self.index.ids[start : start + size]
            yield ids, self.rewards(name, [Prompt(prompt_id, "") for prompt_id in ids], k)

    def batches(self, size: int = 1024) -> Iterator[pa.Table]:
        """As :meth:`read`, but `size` whole prompts at a time, as they lie in the store."""
        for start in range(0, len(self.index.ids), size):
            yield self._reader.table(np.arange(start, min(start + size, len(self.index.ids))))

    def read(self) -> pa.Table:
        """Everything as one table: a row per rollout, a column per reward, null where missing.

        Rows are sorted by prompt id and sample.
        """
        return self._reader.table(
            np.array(sorted(self.index.numbers.values(), key=self.index.ids.__getitem__), np.int64)
        )

    def reward_table(self, name: str) -> pa.Table:
        """Rewards `name`: prompt_id, sample, reward; sorted by prompt id and sample."""
        begin, end = self.index.rewards.get(name, Runs.none()).intervals(self._sorted())
        places = expanded(begin, end - begin)
        rewards = self._reader.rewards(name, begin, end)
        ids = pa.array(self.index.ids, pa.string()).take(pa.array(places // LINE))
        columns = [ids, pa.array(places % LINE, pa.int32()), pa.array(rewards)]
        return pa.table(columns, ["prompt_id", "sample", "reward"])

    def export(self, path: str | Path) -> Path:
        """Write :meth:`read`'s table as one Parquet file, atomically; returns its path."""
        path = Path(path)
        sink = pa.BufferOutputStream()
        pq.write_table(self.read(), sink)
        write_atomically(path, sink.getvalue().to_pybytes(), path.parent)
        return path

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer of this store.

        Raises:
            BlockingIOError: if another run is writing.
            ValueError: if the store became another policy's since it was opened.
        """
        with explained("cannot lock the store", self.path):
            try:
                # A little patience: who is about to open the store may hold the lock for a look.
                self._lock.acquire(timeout=0.2, poll_interval=0.02)
            except filelock.Timeout as error:
                raise BlockingIOError(
                    f"{self.path} is being written by another run. Wait until it ends, or stop "
                    "it; then run the same again."
                ) from error
        try:
            require_same(self.path, read_identity(self.path), self.identity)
            # With the lock held, whatever is half-written was left by a run that died.
            shutil.rmtree(self.path / "partial", ignore_errors=True)
            self._look(remember=True)
            shards = len(self.index.shards)
            yield
            if len(self.index.shards) > shards:
                # Read back what was written: it is checked once, and the next opening is spared it.
                self._look(remember=True)
        finally:
            self._lock.release()

    def add_rollouts(
        self,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
        responses: Sequence[Sequence[Response]],
    ) -> None:
        """Append one shard: the given samples of each prompt. Only inside :meth:`writing`."""
        self._require_lock()
        self.index.require_new_rollouts(prompts, samples)
        table = rollout_table(prompts, samples, responses)
        shard = self._write("rollouts", "", prompts, samples, table)
        self.index.add_rollouts(shard, prompts, samples)

    def add_rewards(
        self,
        name: str,
        maker: str | None,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
        rewards: Float[np.ndarray, "P K"],
    ) -> None:
        """Append one shard: rewards of rollouts in the store. Only inside :meth:`writing`."""
        self._require_lock()
        self.index.require_new_rewards(name, prompts, samples)
        table = reward_table(name, maker, prompts, samples, rewards)
        shard = self._write("rewards", name, prompts, samples, table)
        self.index.add_rewards(name, maker, shard, prompts, samples)

    def _require_lock(self) -> None:
        if not self._lock.is_locked:
            raise RuntimeError("rows are added inside `with store.writing():` only.")

    def _write(
        self,
        folder: str,
        name: str,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
        table: pa.Table,
    ) -> Path:
        key = content_key(name, [prompt.id for prompt in prompts], list(samples))[:12]
        stem = f"{reward_slug(name)}-{key}" if name else key
        return write_shard(self.path / folder, stem, table, self.path / "partial")

    def _look(self, remember: bool = False) -> None:
        self.index = Index(self.path, remember)
        self._reader = Reader(self.path, self.index)

    def _sorted(self) -> Int[np.ndarray, "P"]:
        ids = self.index.ids
        return np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
