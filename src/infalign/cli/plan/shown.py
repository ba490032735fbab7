"""Answers as tables and as JSON."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from infalign.cli.console import print_result, print_table

__all__ = ["Answer", "Table", "nats", "percent", "rate", "show"]


@final
@dataclasses.dataclass(frozen=True)
class Table:
    """One table, and what a reader should know about it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@final
@dataclasses.dataclass(frozen=True)
class Answer:
    """Of one question."""

    data: Any
    """For --json."""
    tables: Sequence[Table]
    """For people."""


def show(answer: Answer, as_json: bool) -> None:
    """To standard output."""
    if as_json:
        print_result(json.dumps(_plain(answer.data), indent=2, allow_nan=False))
        return
    for table in answer.tables:
        print_table(table.title, table.columns, table.rows)
        for note in table.notes:
            print_result(note)


def rate(value: float) -> str:
    """A win rate, or nothing where there is none."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def nats(value: float) -> str:
    """A KL or a β."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def percent(share: float) -> str:
    """Of the limit."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _plain(data: Any) -> Any:
    """What JSON can hold: no NaN, no arrays, no dataclasses."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {f.name: _plain(getattr(data, f.name)) for f in dataclasses.fields(data)}
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, np.ndarray | np.generic):
        return _plain(data.tolist())
    return None if isinstance(data, float) and not math.isfinite(data) else data
