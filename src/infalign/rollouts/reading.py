"""Reading rows of shards: a shard at a time, its bytes checked each time they are read."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from infalign.rollouts.index import Index
from infalign.rollouts.runs import Runs
from infalign.rollouts.shards import intact_bytes, parsed
from infalign.rollouts.tables import ROLLOUTS

__all__ = ["Reader"]


class Reader:
    """Rows at places of the line (see :mod:`infalign.rollouts.runs`), in the order asked for."""

    def __init__(self, path: Path, index: Index) -> None:
        self._path, self._index = path, index
        self._last: tuple[tuple[str, ...], pa.Table] | None = None

    def table(self, numbers: Int[np.ndarray, "P"]) -> pa.Table:
        """All rollouts of the prompts with these numbers, with a column per reward."""
        begin, end = self._index.rollouts.intervals(numbers)
        table = self.rows(begin, end, ROLLOUTS.names)
        for name in sorted(self._index.rewards):
            values = self.rewards(name, begin, end)
            table = table.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
        return table

    def rewards(self, name: str, begin: np.ndarray, end: np.ndarray) -> Float[np.ndarray, "N"]:
        """Rewards `name` of all places of the intervals; NaN where there is none."""
        found = np.full(int((end - begin).sum()), np.nan)
        pieces = self._index.rewards.get(name, Runs.none()).pieces(begin, end)
        for shard, rows, targets in pieces.by_shard():
            found[targets] = self._shard(shard, ["reward"])["reward"].to_numpy()[rows]
        return found

    def rows(self, begin: np.ndarray, end: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Columns of the rollouts that are held of the intervals."""
        tables = [pa.schema([ROLLOUTS.field(name) for name in columns]).empty_table()]
        places = [np.empty(0, np.int64)]
        for shard, rows, targets in self._index.rollouts.pieces(begin, end).by_shard():
            tables.append(self._shard(shard, columns).take(pa.array(rows)))
            places.append(targets)
        table, place = pa.concat_tables(tables), np.concatenate(places)
        if (place[1:] >= place[:-1]).all():
            return table
        return table.take(pa.array(np.argsort(place, kind="stable")))

    def column(self, column: str, places: Int[np.ndarray, "N"]) -> list[str]:
        """One column of the rollouts at the places."""
        return self.rows(places, places + 1, [column])[column].to_pylist()

    def token_count(self, numbers: Int[np.ndarray, "P"]) -> int:
        """Tokens of all rollouts of the prompts with these numbers; a shard at a time."""
        held, total = self._index.rollouts, 0
        for shard, rows, _ in held.pieces(*held.intervals(numbers)).by_shard():
            tokens = self._shard(shard, ["token_ids"])["token_ids"]
            lengths = pc.call_function("list_value_length", [tokens]).to_numpy()
            total += int(lengths[rows].sum())
        return total

    def _shard(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a whole shard. The last is kept: who reads in order reads each once."""
        shard = self._index.shards[number]
        key = (shard, *columns)
        if self._last is None or self._last[0] != key:
            self._last = key, parsed(self._bytes(shard), columns).replace_schema_metadata()
        return self._last[1]

    def _bytes(self, shard: str) -> bytes:
        """A shard's bytes; where they were altered it is set aside.

        Opening cannot be left to do that: a disk may alter bytes without altering times, and what
        is remembered of the shard would then be believed again.
        """
        with contextlib.suppress(FileNotFoundError):
            for _ in range(2):  # what a disk or a network misread once is no damage
                data = intact_bytes(self._path / shard)
                if data is not None:
                    return data
        aside = self._index.set_aside(shard)
        happened = "was taken away" if aside is None else f"was altered, and is now {aside}"
        raise ValueError(
            f"{self._path / shard} is not what it was when the store was opened: it {happened}. "
            "Open the store again, and run again what made it; all other shards are untouched."
        )
