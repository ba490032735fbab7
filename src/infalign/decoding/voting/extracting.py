"""What an answer says: the part of a text by which votes are counted.

Any function of a text will do. It returns the key that votes are counted by, or None where the text
says nothing that counts.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import final

__all__ = [
    "EXTRACT_NAMES",
    "Extract",
    "LastMatch",
    "boxed",
    "extract_from_name",
    "last_number",
    "stripped",
]

Extract = Callable[[str], str | None]
"""Text → key; None abstains."""

_NUMBER = re.compile(
    r"(?<![\w.])[-−+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-−+]?\d+(?!\w))?"
)
_PARTS = re.compile(r"([-+]?)(\d*)(?:\.(\d+))?(?:[eE]([-+]?)(\d+))?")
"""Sign, digits before and behind the point, sign and digits of the exponent."""
_MOST_ZEROS, _LONGEST_POWER = 100, 9
"""Zeros that are written out, and digits of an exponent that is believed."""


def stripped(text: str) -> str:
    """The whole text, without the space around it.

    Example:
        >>> stripped(" yes ")
        'yes'
    """
    return text.strip()


def last_number(text: str) -> str | None:
    """The last number in the text, in one spelling; None where there is none.

    Example:
        >>> [last_number(text) for text in ("1 + 1 = 2.0", "so $1,250.", "x is −.50", "who knows")]
        ['2', '1250', '-0.5', None]
        >>> last_number("about 1.5e3")
        '1500'
    """
    found = _NUMBER.findall(text)
    return _one_spelling(found[-1]) if found else None


def boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{…}``; a number in one spelling; None where there is none.

    Example:
        >>> boxed(r"so \boxed{1} or rather \boxed{\frac{1}{2}}."), boxed(r"\boxed{ 4.0 }")
        ('\\frac{1}{2}', '4')
        >>> boxed("4") is None
        True
    """
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth, first = 1, start + len(r"\boxed{")
    for place in range(first, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            inner = text[first:place].strip()
            return _one_spelling(inner) if _NUMBER.fullmatch(inner) else inner or None
    return None  # cut off before the bracket closed


@final
@dataclasses.dataclass(frozen=True)
class LastMatch:
    """What a regular expression finds last: its first group, or all of it where it has none.

    Args:
        pattern: in Python's language.

    Raises:
        ValueError: a pattern that is none.

    Example:
        >>> LastMatch(r"answer: *(\\w+)")("The answer: A. No, answer: B")
        'B'
    """

    pattern: str
    """The regular expression."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"{self.pattern!r} is not a regular expression: {error}. Mend it."
            ) from error

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def __call__(self, text: str) -> str | None:
        matches = list(self._compiled.finditer(text))
        if not matches:
            return None
        found = matches[-1][1 if self._compiled.groups else 0]
        return (found or "").strip() or None


def _one_spelling(number: str) -> str | None:
    """1,250.50 → 1250.5; −0 → 0; 1.2e3 → 1200. Exact at any length; None for absurd exponents."""
    found = _PARTS.fullmatch(number.replace(",", "").replace("−", "-"))
    assert found is not None  # as _NUMBER found it
    sign, whole, part, down, power = (text or "" for text in found.groups())
    digits = "".join(str(int(digit)) for digit in whole + part).lstrip("0")
    if not digits:
        return "0"
    if len(power.lstrip("0")) > _LONGEST_POWER:
        return None
    short = digits.rstrip("0")
    shift = int(f"{down}{power or 0}") - len(part) + len(digits) - len(short)
    return ("-" if sign == "-" else "") + _plain(short, shift)


def _plain(digits: str, shift: int) -> str:
    """digits·10^shift, written out unless that takes too many zeros."""
    point = len(digits) + shift
    if shift > _MOST_ZEROS or point < -_MOST_ZEROS:
        return f"{digits}e{shift}"
    if shift >= 0:
        return digits + "0" * shift
    return f"{digits[:point]}.{digits[point:]}" if point > 0 else f"0.{'0' * -point}{digits}"


_EXTRACTS: Mapping[str, Extract] = {"text": stripped, "last_number": last_number, "boxed": boxed}
EXTRACT_NAMES = tuple(_EXTRACTS)
"""Names `extract_from_name` knows."""


def extract_from_name(name: str) -> Extract:
    """The function of that name.

    Args:
        name: one of `EXTRACT_NAMES`.

    Raises:
        ValueError: on an unknown name, with the nearest right one.

    Example:
        >>> extract_from_name("last-number")("six times 7 is 42")
        '42'
    """
    key = name.strip().lower().replace("-", "_")
    if key not in _EXTRACTS:
        near = difflib.get_close_matches(key, EXTRACT_NAMES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Unknown extract {name!r}.{hint} Known: {', '.join(EXTRACT_NAMES)}; in Python any "
            "function of a text will do, such as LastMatch(pattern)."
        )
    return _EXTRACTS[key]
