"""What makes a procedure the same: its class and all its fields, in words that JSON has.

Names are for people and leave out what is seldom changed, such as how a vote reads an answer. What
was found by a procedure, kept on disk, and found again must have been found by the same one.
"""

import dataclasses
import functools
import hashlib
import math
import numbers
import re
import types
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from infalign.decoding.decode import on_text
from infalign.decoding.text_procedure import TextProcedure
from infalign.quantile.procedures import Procedure

__all__ = ["procedure_identity"]


def procedure_identity(procedure: TextProcedure | Procedure) -> dict[str, Any]:
    """Class and fields of a procedure, and of what its fields hold.

    Functions are told by where they were defined and what they close over; models by their
    fingerprint; other objects that are no dataclasses by their class, numbers and words.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> procedure_identity(BestOfN(4))["procedure"]
        {'class': 'infalign.quantile.procedures.ranks:BestOfN', 'n': 4}
    """
    return _told(on_text(procedure))


def _told(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic):
        return _told(value.item())
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, numbers.Number | re.Pattern):
        return repr(value)  # NaN too, which is not equal to itself
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(repr((value.dtype.str, value.shape)).encode())
        return hashlib.sha256(digest.digest() + value.tobytes()).hexdigest()
    if isinstance(value, Mapping):
        return [[_told(key), _told(held)] for key, held in value.items()]
    if isinstance(value, Set):
        return sorted(map(repr, value))
    if isinstance(value, Sequence):
        return [_told(held) for held in value]
    return _function(value) if callable(value) else _object(value)


def _function(value: Any) -> Any:
    """A function, or an object that can be called."""
    if isinstance(value, functools.partial):
        return ["partial", _told(value.func), _told(value.args), _told(value.keywords)]
    if isinstance(value, types.MethodType):
        return [_place(value.__func__), _told(value.__self__)]
    if not hasattr(value, "__name__"):
        return _object(value)
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    held = [*cells, *(getattr(value, "__defaults__", None) or ())]
    # A function that closes over itself would have no end.
    told = [_place(one) if callable(one) else _told(one) for one in held if _is_plain(one)]
    return [_place(value), *told] if told else _place(value)


def _object(value: Any) -> dict[str, Any]:
    told = {"class": _place(type(value))}
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return {**told, "fingerprint": fingerprint}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        fields = {k: v for k, v in getattr(value, "__dict__", {}).items() if _is_plain(v)}
    return {**told, **{name: _told(held) for name, held in fields.items()}}


def _is_plain(value: Any) -> bool:
    """A number, a word, or a function."""
    return isinstance(value, str | numbers.Number | re.Pattern | types.FunctionType)


def _place(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or value.__name__
    return f"{getattr(value, '__module__', None)}:{name}"
