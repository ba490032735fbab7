"""Counts that procedures on text take: refused before anything is sampled."""

import numbers

from infalign.quantile.procedures.ranks import refuse_n

__all__ = ["refuse_candidates_count", "refuse_count"]


def refuse_count(count: int, field: str, what: str, *, least: int = 1) -> None:
    """Raise ValueError unless `count` is an integer of at least `least`; True is none.

    Example:
        >>> refuse_count(0, "block", "blockwise best-of-n")
        Traceback (most recent call last):
        ...
        ValueError: block is 0 in blockwise best-of-n; an integer ≥ 1 is needed.
    """
    is_integer = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not is_integer or count < least:
        raise ValueError(f"{field} is {count!r} in {what}; an integer ≥ {least} is needed.")


def refuse_candidates_count(n: int, what: str) -> None:
    """Raise ValueError unless n is a number of candidates that may be asked for."""
    refuse_count(n, "n", what)
    refuse_n(n, what)
