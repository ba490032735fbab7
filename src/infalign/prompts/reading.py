"""Prompt files: JSONL, Parquet, CSV and saved datasets, in TRL's formats as they are.

Each reader yields records with the line or row they stand on, so that whatever is wrong with one
can be found in the file. Text is decoded line by line for the same reason.
"""

import csv
import itertools
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infalign.prompts.prompt import Prompt, shown

__all__ = ["load_prompts", "prompts_from_lines"]

FIELDS = ("prompt", "question", "instruction", "text", "messages")
"""Columns looked for, in this order, when no field is named."""

Row = tuple[str, dict[str, Any]]
"""Where a record stands ("line 3"), for error messages, and the record."""


def load_prompts(
    path: str | Path, field: str | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts of a JSONL, Parquet or CSV file, or of a `datasets` dataset saved on disk.

    Reads TRL's formats as they are: standard (`{"prompt": text}`) and conversational
    (`{"prompt": [messages]}`). Of `{"messages": [...]}` the last turn is left out if it is the
    assistant's, since that is the answer. Where an `instruction` column is found unasked beside
    Alpaca's `input`, a non-empty input is appended after a blank line.

    Args:
        path: file (.jsonl, .parquet, .csv; UTF-8) or folder written by `save_to_disk`.
        field: column to read. By default the first of prompt, question, instruction, text,
            messages that the first record has.
        limit: at most this many prompts, the first of the file. ≥ 1.

    Returns:
        Distinct prompts in file order; repeats are left out with a warning that counts them.

    Raises:
        ValueError: an empty, undecodable or malformed file, an unknown extension or column, an
            empty prompt; the message names the file and the line or row.
        FileNotFoundError: if there is nothing at `path`.
        ImportError: if a dataset folder is given and `datasets` is not installed.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1, or None for all prompts.")
    return _collected(_rows(path), path, field, limit)


def prompts_from_lines(
    lines: Iterable[bytes], source: str = "standard input", field: str | None = None
) -> list[Prompt]:
    """Prompts from a stream: JSONL where its first line is an object, else a prompt on each line.

    Args:
        lines: UTF-8, with their endings.
        source: what messages call the stream.
        field: column to read of JSONL, see :func:`load_prompts`.

    Raises:
        ValueError: as :func:`load_prompts`.

    Example:
        >>> [prompt.text for prompt in prompts_from_lines([b"Why?\\n", b"\\n", b"How?\\n"])]
        ['Why?', 'How?']
        >>> prompts_from_lines([b'{"question": "Why?"}\\n'])[0].text
        'Why?'
    """
    given = list(lines)
    texts = _decoded(given, source)
    if next((line for line in given if line.strip()), b"").lstrip().startswith(b"{"):
        return _collected(_json_rows(texts, source), source, field, None)
    stripped = ((number, text.rstrip("\r\n")) for number, text in enumerate(texts, 1))
    plain: Iterator[Row] = ((f"line {n}", {"prompt": text}) for n, text in stripped if text.strip())
    return _collected(plain, source, None, None)


def _collected(
    rows: Iterator[Row], path: Path | str, field: str | None, limit: int | None
) -> list[Prompt]:
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path} holds no prompts; it is empty. One record per prompt is needed.")
    name = _choose_field(first[1], field, path)
    joins_input = field is None and name == "instruction"
    found: dict[str, Prompt] = {}
    repeats = 0
    for where, row in itertools.chain([first], rows):
        try:
            prompt = _prompt_of(row, name, joins_input)
        except ValueError as error:
            raise ValueError(f"{path}, {where}, field '{name}': {error}.") from error
        repeats += prompt.id in found
        found.setdefault(prompt.id, prompt)
        if len(found) == limit:
            break
    if repeats:
        warnings.warn(
            f"{path}: {repeats} of {len(found) + repeats} prompts repeat an earlier one and were "
            "left out: the same prompt in training and test would be no test.",
            stacklevel=2,
        )
    return list(found.values())


def _prompt_of(row: Mapping[str, Any], field: str, joins_input: bool) -> Prompt:
    value = row.get(field)
    if field == "messages" and isinstance(value, str):  # a CSV cell
        value = json.loads(value)
    if isinstance(value, str):
        extra = row.get("input") if joins_input else None
        return Prompt.from_text(f"{value}\n\n{extra}" if extra and value.strip() else value)
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} found; text or a list of messages is needed")
    last = value[-1] if value else None
    if field == "messages" and isinstance(last, Mapping) and last.get("role") == "assistant":
        value = value[:-1]
    return Prompt.from_messages(value)


def _choose_field(row: Mapping[str, Any], field: str | None, path: Path | str) -> str:
    wanted = (field,) if field else FIELDS
    for name in wanted:
        if name in row:
            return name
    columns = ", ".join(map(str, row)) or "none"
    raise ValueError(
        f"{path} has no column {' or '.join(map(repr, wanted))}; its columns are: {columns}. "
        "Name the one that holds the prompts with `field`."
    )


def _rows(path: Path) -> Iterator[Row]:
    if path.is_dir():
        return _dataset_rows(path)
    if not path.exists():
        raise FileNotFoundError(f"no prompt file at {path}.")
    readers = {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{path} ends in '{path.suffix}'; prompts are read from .jsonl, .parquet and .csv "
            "files and from folders written by datasets' save_to_disk. Convert or rename it."
        )
    return readers[path.suffix.lower()](path)


def _text_lines(path: Path) -> Iterator[str]:
    """Lines with their endings, decoded one by one so that an error knows its line."""
    with path.open("rb") as file:
        yield from _decoded(file, path)


def _decoded(lines: Iterable[bytes], path: Path | str) -> Iterator[str]:
    for number, raw in enumerate(lines, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: byte {error.start + 1} "
                f"(0x{raw[error.start]:02x}) is not UTF-8. Save the file as UTF-8."
            ) from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    return _json_rows(_text_lines(path), path)


def _json_rows(lines: Iterable[str], path: Path | str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}). JSONL "
                "has one complete object on each line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, line {number}: {shown(row)} found; an object such as "
                '{"prompt": "..."} is needed.'
            )
        yield f"line {number}", row


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.DictReader(_text_lines(path), strict=True)
    try:
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path}, line {reader.line_num}: more cells than the header has columns. "
                    "Quote cells that contain commas."
                )
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            rows: Iterable[dict[str, Any]] = itertools.chain.from_iterable(
                batch.to_pylist() for batch in file.iter_batches()
            )
            yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}).") from error


def _dataset_rows(path: Path) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{path} is a folder; reading a saved dataset needs the `datasets` package: "
            "pip install 'infalign[lm]'"
        ) from error
    try:
        data = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is a folder, but no dataset saved by save_to_disk.") from error
    if isinstance(data, datasets.DatasetDict):
        if len(data) != 1:
            splits = ", ".join(f"{path}/{name}" for name in data)
            raise ValueError(f"{path} holds {len(data)} splits; name one of them: {splits}.")
        data = next(iter(data.values()))
    yield from ((f"row {number}", dict(row)) for number, row in enumerate(data, 1))
