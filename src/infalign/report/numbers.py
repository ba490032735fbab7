"""How numbers read in a report: percent, points, intervals, durations; and text made printable."""

import re

from infalign.report.measured import Estimate

__all__ = [
    "count",
    "duration",
    "interval_points",
    "nats",
    "nats_with_error",
    "percent",
    "percent_with_error",
    "points",
    "printable",
    "real",
    "shorten",
]

MISSING = "–"
_MINUS = "−"


def _signs(text: str) -> str:
    """A real minus sign, and no minus at all before a rounded zero."""
    if text.startswith("-") and not any(c in "123456789" for c in text):
        text = text[1:]
    return text.replace("-", _MINUS)


def percent(probability: float | None, digits: int = 1) -> str:
    r"""A probability as percent.

    Example:
        >>> percent(0.8715)
        '87.2\xa0%'
    """
    return MISSING if probability is None else _signs(f"{100 * probability:.{digits}f}") + "\u00a0%"


def percent_with_error(estimate: Estimate | None) -> str:
    """Percent with one standard error, `87.2 ± 1.9`; the unit stands in the heading."""
    if estimate is None:
        return MISSING
    value = _signs(f"{100 * estimate.value:.1f}")
    return value if estimate.se is None else f"{value}\u00a0±\u00a0{100 * estimate.se:.1f}"


def points(difference: float) -> str:
    """A difference of probabilities in percentage points, with its sign."""
    text = _signs(f"{100 * difference:.1f}")
    return text if text.startswith(_MINUS) or float(text) == 0 else f"+{text}"


def interval_points(estimate: Estimate, joint: str = " to ") -> str:
    """The 95 % interval of a difference in points, or nothing where no error is known."""
    ends = estimate.interval()
    return "" if ends is None else joint.join(points(end) for end in ends)


def real(value: float | None, digits: int = 2) -> str:
    """A plain number with a real minus sign."""
    return MISSING if value is None else _signs(f"{value:.{digits}f}")


def nats(kl: float | None) -> str:
    """A KL, with a third decimal where two would say little."""
    return real(kl, 3 if kl is not None and 0 < kl < 0.1 else 2)


def nats_with_error(kl: Estimate) -> str:
    """A KL with one standard error."""
    if kl.se is None:
        return nats(kl.value)
    digits = 3 if 0 < min(kl.value, 10 * kl.se) < 0.1 else 2
    return f"{real(kl.value, digits)}\u00a0±\u00a0{real(kl.se, digits)}"


def count(value: int | None) -> str:
    """An integer with thin spaces between thousands."""
    return MISSING if value is None else f"{value:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Seconds as a reader says them.

    Example:
        >>> duration(0.412), duration(75), duration(4000)
        ('0.41 s', '1 min 15 s', '1 h 7 min')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def shorten(text: str, length: int) -> str:
    """At most `length` characters on one line, the last an ellipsis where text was cut.

    Example:
        >>> shorten("a name that does not fit", 10)
        'a name th…'
    """
    line = " ".join(printable(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def printable(text: str) -> str:
    """Text that HTML and XML can hold: control characters and lone surrogates become '\ufffd'."""
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
    return _UNPRINTABLE.sub("\ufffd", text)
