"""Counts: how many responses are drawn, how many tokens written; refused before anything is."""

import numbers

__all__ = ["refuse_count", "refuse_draw"]


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


def refuse_draw(k: int, limit: int | None = None) -> None:
    """Refuse to draw nothing.

    Args:
        k: responses to each prompt.
        limit: new tokens at most; None: no limit of its own.

    Raises:
        ValueError: one of them is no whole number ≥ 1.
    """
    refuse_count(k, "k", "a draw (responses to each prompt)")
    if limit is not None:
        refuse_count(limit, "limit", "a draw (new tokens at most)")
