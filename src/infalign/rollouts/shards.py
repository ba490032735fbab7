"""Parquet files that are complete or absent, and know whether they are intact.

A file is written beside its destination, flushed to the disk and only then renamed, which file
systems do in one step. Its name carries a digest of its bytes: a file that was torn, truncated or
altered no longer matches its name, whichever of its bytes it was.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = [
    "content_key",
    "explained",
    "intact_bytes",
    "make_folder",
    "parsed",
    "write_atomically",
    "write_shard",
]

DIGEST_LENGTH = 16


def content_key(*parts: object) -> str:
    """Hash of JSON-able values, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def write_shard(folder: Path, stem: str, table: pa.Table, partial: Path) -> Path:
    """Write `table` as `stem-digest.parquet` in `folder`, or nothing at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    path = folder / f"{stem}-{_digest(data)}.parquet"
    write_atomically(path, data, partial)
    return path


def write_atomically(path: Path, data: bytes, partial: Path) -> None:
    """Write a file so that a reader, or a run after a power cut, sees all of it or none.

    Args:
        path: destination; replaced if it exists.
        data: the whole content.
        partial: folder for the unfinished file, on the same file system as `path`. A folder of
            its own, so that tools pointed at the destination's folder never meet half a file.
    """
    unfinished = partial / f"{path.name}.{uuid.uuid4().hex[:8]}"
    with explained(f"cannot write {path.name}", path.parent):
        try:
            make_folder(path.parent)
            partial.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder, so that it is there after a power cut too."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def intact_bytes(path: Path) -> bytes | None:
    """The file's bytes, if they are those that were written."""
    data = path.read_bytes()
    return data if path.stem.endswith("-" + _digest(data)) else None


def parsed(data: bytes, columns: Sequence[str], dictionaries: Sequence[str] = ()) -> pa.Table:
    """Columns of a shard's bytes, those in `dictionaries` left dictionary-encoded."""
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(dictionaries))
    return file.read(columns=list(columns), use_threads=False)


@contextlib.contextmanager
def explained(what: str, folder: Path) -> Iterator[None]:
    """Turn an operating system's error into one that says what is kept and what to do."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"{what}: {error.strerror or error}. What was finished before is kept. Make room or "
            "make the folder writable, then run the same again: it resumes",
            str(folder),
        ) from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself; only POSIX systems can open a folder for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
