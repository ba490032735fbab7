"""The store: a folder of shards that knows whose rollouts it holds.

`store.json` says which policy, sampling law and seed; `rollouts/` and `rewards/` hold the shards
and can be pointed at by pandas, polars, duckdb or `datasets`; `damaged/` receives shards whose
bytes are no longer those that were written.
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampler
from infalign.rollouts.identity import identity_of, read_identity, require_same
from infalign.rollouts.index import MAKER, Held, Index
from infalign.rollouts.shards import content_key, explained, write_atomically, write_shard

__all__ = ["REWARDS", "ROLLOUTS", "RolloutStore", "reward_slug"]

ROLLOUTS = pa.schema(
    {
        "prompt_id": pa.string(),
        "prompt": pa.string(),
        "sample": pa.int32(),
        "text": pa.string(),
        "token_ids": pa.list_(pa.int32()),
        "log_prob": pa.float64(),
        "finish_reason": pa.string(),
    }
)

REWARDS = pa.schema(
    {
        "prompt_id": pa.string(),
        "sample": pa.int32(),
        "reward_name": pa.string(),
        "reward": pa.float64(),
    }
)


class RolloutStore:
    """Rollouts of one policy at one sampling law and seed, and their rewards.

    Open it with :meth:`open` to add to it, with :meth:`existing` to use it without its policy.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Index the shards in `path`; use :meth:`open` or :meth:`existing` instead."""
        self.path = path
        self.identity = identity
        self.index = Index(path)
        self._lock = filelock.FileLock(path / "store.lock")

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
        """
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or greater.")
        path = Path(path)
        if not (path / "store.json").exists():
            if any(path.glob("rollouts/*.parquet")):
                raise ValueError(
                    f"{path} holds rollouts but no store.json that says whose they are. Restore "
                    "that file, or use another folder."
                )
            data = json.dumps(identity_of(policy, seed), indent=2).encode() + b"\n"
            write_atomically(path / "store.json", data, path / "partial")
        identity = read_identity(path)
        require_same(path, identity, identity_of(policy, seed))
        return cls(path, identity)

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
        return tuple(sorted(self.index.rollouts))

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
        for prompt in prompts:
            stored = self.index.texts.get(prompt.id, prompt.text)
            if stored != prompt.text:
                raise ValueError(
                    f"prompt {prompt.id} was answered in {self.path} as ...{stored[-60:]!r} and "
                    f"is now ...{prompt.text[-60:]!r}. Rendered by another chat template it is "
                    "another question: use another folder, or the same template."
                )

    def responses(self, prompts: Sequence[Prompt], k: int | None = None) -> list[list[Response]]:
        """P lists of the prompts' rollouts, in the order they were drawn.

        Args:
            prompts: in the order wanted.
            k: the first k of each; all by default, which must then be equally many.

        Raises:
            ValueError: if a prompt has too few rollouts, or they are unequally many.
        """
        self.require_texts(prompts)
        held = self.index.rollouts
        k = self.index.common_count(held, prompts, k, "rollouts")
        rows = self.rows(held, [prompt.id for prompt in prompts])
        return [[_response(rows[prompt.id, i]) for i in range(k)] for prompt in prompts]

    def rewards(
        self, name: str, prompts: Sequence[Prompt], k: int | None = None
    ) -> Float[np.ndarray, "P K"]:
        """Rewards `name` of the prompts' rollouts, in the order they were drawn.

        Raises:
            ValueError: if a prompt has too few rewards, or they are unequally many.
        """
        held = self.index.rewards.get(name, {})
        k = self.index.common_count(held, prompts, k, f"'{name}' rewards")
        rows = self.rows(held, [prompt.id for prompt in prompts])
        values = [[rows[prompt.id, i]["reward"] for i in range(k)] for prompt in prompts]
        return np.array(values, dtype=np.float64).reshape(len(prompts), k)

    def read(self) -> pa.Table:
        """Everything as one table: a row per rollout, a column per reward, null where missing.

        Rows are sorted by prompt id and sample.
        """
        shards = sorted({shard for held in self.index.rollouts.values() for shard in held.values()})
        table = pa.concat_tables([ROLLOUTS.empty_table(), *map(_load, shards)])
        table = table.sort_by([("prompt_id", "ascending"), ("sample", "ascending")])
        keys = list(zip(table["prompt_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
        for name in self.reward_names:
            held = self.index.rewards[name]
            rows = self.rows(held, list(held))
            values = [rows[key]["reward"] if key in rows else None for key in keys]
            table = table.append_column(name, pa.array(values, pa.float64()))
        return table

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
        """
        with explained("cannot lock the store", self.path):
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout as error:
                raise BlockingIOError(
                    f"{self.path} is being written by another run. Wait until it ends, or stop "
                    "it; then run the same again."
                ) from error
        try:
            # With the lock held, whatever is half-written was left by a run that died.
            shutil.rmtree(self.path / "partial", ignore_errors=True)
            self.index = Index(self.path)
            yield
        finally:
            self._lock.release()

    def add_rollouts(
        self,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
        responses: Sequence[Sequence[Response]],
    ) -> None:
        """Append one shard: the given samples of each prompt. Only inside :meth:`writing`."""
        rows = [
            {"prompt_id": prompt.id, "prompt": prompt.text, "sample": sample}
            | dataclasses.asdict(response)
            for prompt, row in zip(prompts, responses, strict=True)
            for sample, response in zip(samples, row, strict=True)
        ]
        table = pa.Table.from_pylist(rows, ROLLOUTS)
        self.index.add_rollouts(self._write("rollouts", "", prompts, samples, table))

    def add_rewards(
        self,
        name: str,
        maker: str | None,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
        rewards: Float[np.ndarray, "P K"],
    ) -> None:
        """Append one shard: rewards of rollouts in the store. Only inside :meth:`writing`."""
        rows = [
            {"prompt_id": prompt.id, "sample": sample, "reward_name": name, "reward": float(value)}
            for prompt, row in zip(prompts, rewards, strict=True)
            for sample, value in zip(samples, row, strict=True)
        ]
        table = pa.Table.from_pylist(rows, REWARDS)
        if maker is not None:
            table = table.replace_schema_metadata({MAKER: maker.encode()})
        self.index.add_rewards(self._write("rewards", name, prompts, samples, table))

    def _write(
        self,
        folder: str,
        name: str,
        prompts: Sequence[Prompt],
        samples: Sequence[int],
        table: pa.Table,
    ) -> Path:
        if not self._lock.is_locked:
            raise RuntimeError("rows are added inside `with store.writing():` only.")
        key = content_key(name, [prompt.id for prompt in prompts], list(samples))[:12]
        stem = f"{reward_slug(name)}-{key}" if name else key
        return write_shard(self.path / folder, stem, table, self.path / "partial")

    @staticmethod
    def rows(held: Held, prompt_ids: Sequence[str]) -> dict[tuple[str, int], dict[str, Any]]:
        """Rows of the shards that hold something of these prompts, by prompt id and sample."""
        shards = {shard for id in prompt_ids for shard in held.get(id, {}).values()}
        return {
            (row["prompt_id"], row["sample"]): row
            for shard in shards
            for row in _load(shard).to_pylist()
        }


def reward_slug(name: str) -> str:
    """How a reward's shards begin: its name, as far as file names allow."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)[:40]


def _load(shard: Path) -> pa.Table:
    return pq.read_table(shard).replace_schema_metadata()


def _response(row: dict[str, Any]) -> Response:
    return Response(row["text"], tuple(row["token_ids"]), row["log_prob"], row["finish_reason"])
