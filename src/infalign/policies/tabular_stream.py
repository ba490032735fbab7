"""Writing along a table of next-token laws."""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, Int

__all__ = ["TabularStream"]


@final
class TabularStream:
    """R responses being written side by side; a row that has ended must not be read again.

    Args:
        laws: "P B V+1", as :class:`.TabularLM` has them.
        rows: the prompt of each response.
        places: the place of its beginning.
    """

    def __init__(
        self, laws: Float[np.ndarray, "P B V1"], rows: Int[np.ndarray, "R"], places: np.ndarray
    ) -> None:
        self._laws, self._rows, self._places = laws, rows, places

    def log_law(self) -> Float[np.ndarray, "R V1"]:
        """log π(·|x, y) of each row's next token. Nats."""
        with np.errstate(divide="ignore"):
            return np.log(self._laws[self._rows, self._places])

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Row r becomes what row `rows[r]` was, with `tokens[r]` appended."""
        kept, v = np.asarray(rows, dtype=int), self._laws.shape[2] - 1
        self._rows = self._rows[kept]
        self._places = self._places[kept] * v + 1 + np.asarray(tokens, dtype=int)
