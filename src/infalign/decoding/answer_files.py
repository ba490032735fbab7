"""A file of answers that grows chunk by chunk and appears whole.

Until all prompts are answered, the answers lie in a folder beside the file, one Parquet file a
chunk: `answers.parquet.parts`. Each is complete or absent, so whatever stops the work, a power cut
too, what is there is kept, and the finished file is the same as if nothing had happened.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from infalign.decoding.records import SCHEMA
from infalign.rollouts.shards import (
    explained,
    intact_bytes,
    make_folder,
    write_atomically,
    write_shard,
)

__all__ = ["AnswerFile", "answer_lines"]

_KEY = b"infalign"
"""Where a Parquet file says how it was made; beside a JSONL file lies another that does."""

_log = logging.getLogger(__name__)


@final
class AnswerFile:
    """Answers in chunks, and the one file of them in the end.

    Args:
        path: .parquet or .jsonl.
        settings: what the answers depend on, in JSON's words; answers of other settings are never
            mixed with these, nor overwritten.

    Raises:
        ValueError: an ending that is neither.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))  # the words a file has for them
        if self.path.suffix not in _WRITERS:
            raise ValueError(
                f"{self.path} ends in {self.path.suffix!r}; answers are written as "
                f"{' or '.join(_WRITERS)}. Rename it."
            )
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder; a file of answers is needed.")

    @property
    def folder(self) -> Path:
        """Where answers lie until all are there."""
        return self.path.with_name(self.path.name + ".parts")

    @property
    def is_finished(self) -> bool:
        """Whether the file is there, made with these settings."""
        return self.path.exists()

    def refuse_others(self) -> None:
        """Refuse to go on with, or to overwrite, answers of other settings.

        Settings that either side does not have are not compared.

        Raises:
            ValueError: naming what differs.
        """
        if self.path.exists():
            self._compare(_found(self.path), self.path, f"delete {self.path}")
        made = self.folder / "settings.json"
        if made.exists() and not self.path.exists():
            self._compare(_json(made.read_bytes()), self.folder, f"delete the folder {self.folder}")

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Within the block no other process writes these answers.

        Raises:
            ValueError: another does.
        """
        with explained("the folder of unfinished answers", self.folder):
            make_folder(self.folder)
            lock = filelock.FileLock(self.folder / "lock", timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise ValueError(
                    f"another process is writing {self.path}; wait for it, or write to another "
                    "file."
                ) from None
        try:
            self.refuse_others()
            text = json.dumps(self.settings, indent=1, ensure_ascii=False)
            write_atomically(self.folder / "settings.json", text.encode(), self._partial)
            yield
        finally:
            lock.release()

    def chunk(self, place: int) -> list[dict[str, Any]] | None:
        """The answers of a chunk; None where it is to be answered (again)."""
        for path in sorted(self.folder.glob(f"{place:06d}-*.parquet")):
            data = intact_bytes(path)
            if data is not None:
                return pq.read_table(pa.BufferReader(data)).to_pylist()
            _log.warning("%s is damaged; its prompts are answered again.", path)
            path.unlink()
        return None

    def keep(self, place: int, rows: list[dict[str, Any]]) -> None:
        """Keep the answers of a chunk."""
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        write_shard(self.folder, f"{place:06d}", table, self._partial)

    def finish(self, chunks: int) -> None:
        """Put all chunks into the one file, and take the folder away."""
        if self.path.suffix == ".jsonl":
            text = json.dumps(self.settings, indent=1, ensure_ascii=False)
            write_atomically(_beside(self.path), text.encode(), self._partial)
        unfinished = self._partial / f"{self.path.name}.whole"
        with explained(f"cannot write {self.path.name}", self.path.parent):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            _WRITERS[self.path.suffix](unfinished, self._chunks(chunks), self.settings)
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, self.path)

    def clean_up(self) -> None:
        """Take away what lies beside a finished file."""
        if self.is_finished and self.folder.exists():
            shutil.rmtree(self.folder)

    def _chunks(self, count: int) -> Iterator[pa.Table]:
        for place in range(count):
            yield pa.Table.from_pylist(self.chunk(place) or [], schema=SCHEMA)

    @property
    def _partial(self) -> Path:
        return self.folder / "partial"

    def _compare(self, found: Any, where: Path, remedy: str) -> None:
        if not isinstance(found, dict):
            raise ValueError(
                f"{where} is there already, and nothing tells how it was made. Choose another "
                f"file, or {remedy} to make it anew."
            )
        both = [name for name in self.settings if name in found]
        other = [name for name in both if found[name] != self.settings[name]]
        if other:
            name = other[0]
            raise ValueError(
                f"{where} holds answers of other settings: {name} is {_short(found[name])} there "
                f"and {_short(self.settings[name])} here. Choose another file, or {remedy} to make "
                "it anew."
            )


def answer_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Rows as lines of JSON, without what none of them has."""
    for row in rows:
        details = json.loads(row["details"] or "{}")
        record = {key: value for key, value in row.items() if key != "details"}
        if row["quantiles"] is None:
            del record["quantile"], record["quantiles"]
        yield json.dumps(record | ({"details": details} if details else {}), ensure_ascii=False)


def _write_parquet(path: Path, chunks: Iterator[pa.Table], settings: Mapping[str, Any]) -> None:
    said = json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()
    schema = SCHEMA.with_metadata({_KEY: said})
    with pq.ParquetWriter(path, schema) as writer:
        for table in chunks:
            writer.write_table(table.replace_schema_metadata({_KEY: said}))


def _write_lines(path: Path, chunks: Iterator[pa.Table], settings: Mapping[str, Any]) -> None:
    del settings  # which lie beside it
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for table in chunks:
            file.writelines(line + "\n" for line in answer_lines(table.to_pylist()))


_WRITERS: dict[str, Callable[[Path, Iterator[pa.Table], Mapping[str, Any]], None]] = {
    ".parquet": _write_parquet,
    ".jsonl": _write_lines,
}


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".settings.json")


def _found(path: Path) -> Any:
    """The settings a finished file was made with; None where nothing tells."""
    if path.suffix == ".jsonl":
        return _json(_beside(path).read_bytes()) if _beside(path).exists() else None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    return _json(metadata.get(_KEY, b""))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
