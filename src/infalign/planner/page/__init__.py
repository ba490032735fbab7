"""The planner's page: one HTML file that computes everything itself and needs nothing else.

The mathematics of the quantile core is written once more, in JavaScript (`maths/`), because a
person who moves a slider cannot wait for a program to be called. `tests/planner/page` reads the
numbers off the page in a browser and holds them to Python's.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

__all__ = ["START", "page_html", "startable", "write_page"]

START: dict[str, str | float] = {
    "procedure": "best_of_n",
    "n": 4,
    "kl": 1.0,
    "transform": "optimal",
    "t": 10.0,
    "k": 0,
    "agreement": 1.0,
    "temperature": 0.1,
    "threshold": 0.5,
    "at_most": 4,
    "steps": 4,
}
"""What the page starts from: each of its controls by name. A k of 0 is perfect calibration."""

_PROCEDURES = (
    "identity",
    "best_of_n",
    "worst_of_n",
    "median_of_n",
    "best_of_poisson",
    "soft_best_of_n",
    "rewind_and_repeat",
    "metropolis_hastings",
)
_CHOICES = {
    "procedure": _PROCEDURES,
    "transform": ("identity", "log", "exponential", "optimal", "gold"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "n": (1, 128),
    "kl": (0.01, 4),
    "t": (-20, 40),
    "k": (0, 4096),
    "agreement": (0, 1),
    "temperature": (0.01, 10),
    "threshold": (0, 0.99),
    "at_most": (1, 128),
    "steps": (0, 64),
}
_MATHS = (
    "quadrature",
    "special",
    "laws",
    "power",
    "procedures",
    "judge",
    "stationary",
    "finite",
    "answers",
)
_VIEW = ("words", "controls", "figures", "main")


def page_html(**start_values: str | float) -> str:
    """The page as text, one self-contained document.

    Args:
        **start_values: where its controls stand at first, by the names in `START`.

    Raises:
        ValueError: on an unknown control, or a value the page cannot show.

    Example:
        >>> page = page_html(procedure="worst_of_n", n=8, kl=0.5)
        >>> page.startswith("<!DOCTYPE html>"), "https://" in page
        (True, False)
        >>> page_html(kl=9)
        Traceback (most recent call last):
        ...
        ValueError: kl is 9; the page shows values from 0.01 to 4.
    """
    for name, value in start_values.items():
        _refuse(name, value)
    maths = "\n".join(_plain("maths", name) for name in _MATHS)
    view = "\n".join(_plain("view", name) for name in _VIEW)
    parts = {
        "css": _text("style.css"),
        "start": json.dumps(START | start_values).replace("<", "\\u003c"),
        "maths": maths + "\n" + _plain("maths", "service"),
        "view": f"(() => {{\n{maths}\n{view}\n}})();",
    }
    # One pass, so that nothing inside a part is taken for a place to fill.
    return re.sub(r"/\*(css|start|maths|view)\*/", lambda m: parts[m[1]], _text("template.html"))


def write_page(path: str | os.PathLike[str], **start_values: str | float) -> Path:
    """Write the page to a file; see :func:`page_html`.

    Args:
        path: where to; a file of that name is replaced.
        **start_values: where its controls stand at first.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_page(Path(folder) / "plan.html", n=8).name
        'plan.html'
    """
    path = Path(path)
    path.write_text(page_html(**start_values), encoding="utf-8")
    return path


def startable(values: Mapping[str, str | float]) -> dict[str, str | float]:
    """Those of the values that the page can start from: numbers moved into its ranges.

    Example:
        >>> startable({"procedure": "best_of_n", "kl": 9.0, "transform": "wild", "beta": 0.1})
        {'procedure': 'best_of_n', 'kl': 4}
    """
    found: dict[str, str | float] = {}
    for name, value in values.items():
        if isinstance(value, str):
            found |= {name: value} if value in _CHOICES.get(name, ()) else {}
        elif name in _RANGES and math.isfinite(value):
            low, high = _RANGES[name]
            found[name] = low if value < low else high if value > high else value
    return found


def _refuse(name: str, value: str | float) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ValueError(f"{name} is {value!r}; the page has {', '.join(_CHOICES[name])}.")
    elif name in _RANGES:
        low, high = _RANGES[name]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}; a number from {low:g} to {high:g} is needed.")
        if not low <= value <= high:
            raise ValueError(
                f"{name} is {value:g}; the page shows values from {low:g} to {high:g}."
            )
    else:
        raise ValueError(f"The page has no control {name!r}; it has {', '.join(START)}.")


def _plain(folder: str, name: str) -> str:
    """A module's text without its imports and exports: all modules share one scope on the page."""
    text = _text(f"{folder}/{name}.js")
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
