"""What all sections share: unknown keys refused, numbers finite, and a short form for a kind."""

import math
from typing import Any, ClassVar

from pydantic import BeforeValidator, Field

__all__ = ["BY_KIND", "NAME_ALONE", "NO_TRUTH", "Section", "is_positive", "require"]


class Section:
    """A part of the experiment file. Validation by pydantic is set up here, and nothing else."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
    }


def require(condition: bool, message: str) -> None:
    """Refuse a value.

    Raises:
        ValueError: with the message, if the condition does not hold.
    """
    if not condition:
        raise ValueError(message)


def is_positive(value: float) -> bool:
    """Whether a number is finite and greater than 0; NaN is not."""
    return math.isfinite(value) and value > 0


def _expanded(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


BY_KIND = Field(discriminator="kind")
"""Marks a field that holds one of several sections, told apart by `kind`."""

NAME_ALONE = BeforeValidator(_expanded)
"""Lets the bare kind stand for the section with that kind and nothing else."""


def _no_truth(value: Any) -> Any:
    require(not isinstance(value, bool), f"{value} found; a whole number is needed")
    return value


NO_TRUTH = BeforeValidator(_no_truth)
"""Marks a count: `true` is none, though Python takes it for 1."""
