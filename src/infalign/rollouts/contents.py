"""What each shard of a folder holds, in a row per run, and the memory of which were checked.

The shards are the single truth. A shard is read whole, its bytes compared with the digest in its
name, and what it holds is taken from those bytes. `index.cache` remembers the outcome for files
whose size and times of change are still those of the file that was checked; any other file is read
again. The cache is never needed: deleted, torn or out of date, it costs time and nothing else.

A file altered twice within one tick of the file system's clock keeps its times. A shard enters the
cache only if its last change was well over a tick before it was read, so that a later one shows.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign.rollouts.shards import intact_bytes, parsed, write_atomically

__all__ = ["CACHE", "MAKER", "RUNS", "digest_of", "load", "look", "runs_of", "save", "unread"]

MAKER = b"reward_fingerprint"
"""Parquet metadata key of a reward shard: which reward made it, where the reward says so."""

CACHE = "index.cache"
FOLDERS = ("rewards", "rollouts")
"""Rewards are listed first: a writer at work adds a rollout before its reward, never after."""

TICK = 2_000_000_000
"""Nanoseconds. Some file systems keep times to two seconds."""

Signature = tuple[int, int, int]
"""Size, time of modification and time of status change (both in nanoseconds) of a file."""

RUNS = pa.schema(
    {
        "file": pa.dictionary(pa.int32(), pa.string()),
        "reward": pa.dictionary(pa.int32(), pa.string()),
        "maker": pa.dictionary(pa.int32(), pa.string()),
        "prompt": pa.dictionary(pa.int32(), pa.string()),
        "text": pa.int64(),
        "sample": pa.int32(),
        "count": pa.int32(),
        "row": pa.int32(),
        "size": pa.int64(),
        "modified": pa.int64(),
        "changed": pa.int64(),
    }
)
"""A row per run: `count` samples from `sample` on, in the shard's rows from `row` on. `reward` is
null for rollouts; `text` is a digest of the prompt's text."""

VERSION = b"infalign index 1"


def look(path: Path) -> dict[str, Signature]:
    """Signature of each shard of the store at `path`, by its path within the store, sorted."""
    found = {}
    for folder in FOLDERS:
        if not (path / folder).is_dir():
            continue
        with os.scandir(path / folder) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet") and (signature := _signature(entry)):
                    found[f"{folder}/{entry.name}"] = signature
    return dict(sorted(found.items()))


def runs_of(path: Path, name: str, signature: Signature) -> pa.Table | None:
    """What the shard `name` of the store at `path` holds; None if its bytes were altered.

    Raises:
        FileNotFoundError: if it is gone.
    """
    data = intact_bytes(path / name)
    if data is None:
        return None
    rewards = name.startswith("rewards/")
    second = "reward_name" if rewards else "prompt"
    table = parsed(data, ["prompt_id", "sample", second], ["prompt_id", second])
    maker = (table.schema.metadata or {}).get(MAKER) if rewards else None
    table = table.unify_dictionaries().combine_chunks()
    if not len(table):
        return RUNS.empty_table()
    ids, seconds = table["prompt_id"].chunk(0), table[second].chunk(0)
    codes = [column.indices.to_numpy(zero_copy_only=False) for column in (ids, seconds)]
    sample = table["sample"].to_numpy()
    new = sample[1:] != sample[:-1] + 1
    for code in codes:
        new |= code[1:] != code[:-1]
    row = np.flatnonzero(np.append(True, new))
    value = seconds.take(pa.array(row)).dictionary_decode()
    texts = [0] * len(row) if rewards else [digest_of(text) for text in value.to_pylist()]
    return _filled(
        name,
        signature,
        reward=value if rewards else pa.nulls(len(row), pa.string()),
        maker=pa.repeat(pa.scalar(maker.decode() if maker else None, pa.string()), len(row)),
        prompt=ids.take(pa.array(row)).dictionary_decode(),
        text=pa.array(texts, pa.int64()),
        sample=pa.array(sample[row], pa.int32()),
        count=pa.array(np.diff(row, append=len(sample)), pa.int32()),
        row=pa.array(row, pa.int32()),
    )


def load(path: Path, found: dict[str, Signature]) -> pa.Table:
    """Remembered runs of those shards that are as they were when they were checked."""
    try:
        data = (path / CACHE).read_bytes()
    except OSError:
        return RUNS.empty_table()
    body, seal = memoryview(data)[:-32], data[-32:]
    if _seal(body) != seal:
        return RUNS.empty_table()
    table = pa.ipc.open_file(pa.BufferReader(body)).read_all()
    if not len(table):
        return RUNS.empty_table()
    code = table["file"].chunk(0).indices.to_numpy()
    head = np.flatnonzero(np.diff(code, prepend=-1))
    names = table["file"].take(pa.array(head)).to_pylist()
    times = zip(*(table[c].take(pa.array(head)).to_pylist() for c in RUNS.names[-3:]), strict=True)
    same = [found.get(name) == signature for name, signature in zip(names, times, strict=True)]
    if all(same):
        return table
    return table.filter(pa.array(np.repeat(same, np.diff(head, append=len(code)))))


def save(path: Path, runs: pa.Table, remembered: int, before: int) -> None:
    """Remember the runs of shards that last changed well before they were read, at `before`.

    Args:
        path: the store, whose one writer calls this.
        runs: of shards that were checked.
        remembered: how many of them were :func:`load`-ed; if that is all, nothing is to be done.
        before: nanoseconds since the epoch; no shard was read earlier.
    """
    latest = np.maximum(runs["modified"].to_numpy(), runs["changed"].to_numpy())
    runs = runs.filter(pa.array(latest < before - TICK))
    if len(runs) == remembered:
        return
    runs = runs.unify_dictionaries().combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, runs.schema) as writer:
        writer.write_table(runs)
    body = sink.getvalue().to_pybytes()
    with contextlib.suppress(OSError):  # whatever the disk says of it, it is not needed
        write_atomically(path / CACHE, body + _seal(body), path / "partial")


def digest_of(text: str) -> int:
    """A 64-bit digest of a text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def unread(found: dict[str, Signature], known: pa.Table) -> Iterator[tuple[str, Signature]]:
    """The shards that `known` says nothing of."""
    names = set(known["file"].unique().to_pylist())
    return ((name, signature) for name, signature in found.items() if name not in names)


def now() -> int:
    """Nanoseconds since the epoch, by the clock that stamps files."""
    return time.time_ns()


def _seal(body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(VERSION)
    digest.update(body)
    return digest.digest()


def _signature(entry: os.DirEntry[str]) -> Signature | None:
    try:
        status = entry.stat()
    except FileNotFoundError:  # set aside by another run since it was listed
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _filled(name: str, signature: Signature, **columns: pa.Array) -> pa.Table:
    length = len(columns["row"])
    columns["file"] = pa.repeat(pa.scalar(name), length)
    for column, value in zip(RUNS.names[-3:], signature, strict=True):
        columns[column] = pa.repeat(pa.scalar(value, pa.int64()), length)
    for field in RUNS:
        if pa.types.is_dictionary(field.type):
            columns[field.name] = columns[field.name].dictionary_encode()
    return pa.table(columns, RUNS)
