"""What makes a record plain: only Python's own numbers, strings and tuples, all of them finite.

A report is written once and read by others for years, so a record refuses at the moment it is
made what could not be written as standard JSON: NaN and infinities have no place there.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["PlainRecord", "require_same_length"]


@dataclasses.dataclass(frozen=True)
class PlainRecord:
    """Base of every record: arrays and lists become tuples, NaN is refused by field name."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _plain(getattr(self, field.name), f"{type(self).__name__}.{field.name}")
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """What must hold between the fields of one record; nothing by default."""


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{where} is {value}; a report holds finite numbers only, so that every reader can "
            "parse it. Pass None where a number is unknown, or leave the part out."
        )
    if isinstance(value, str):
        # Half of a surrogate pair is no character: neither UTF-8 nor JSON readers take it.
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list | tuple):
        return tuple(_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    return value


def require_same_length(record: object, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Fields that run in parallel have one length; those in `optional` may also be empty.

    Raises:
        ValueError: naming the fields and their lengths.
    """
    lengths = {name: len(getattr(record, name)) for name in names + optional}
    wanted = lengths[names[0]]
    wrong = [n for n in lengths if lengths[n] != wanted and not (n in optional and lengths[n] == 0)]
    if wrong:
        raise ValueError(
            f"{type(record).__name__} has lengths {lengths}; these fields run in parallel and "
            f"{', '.join(wrong)} must have length {wanted}, that of {names[0]}."
        )
