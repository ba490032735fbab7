"""Writing a report and reading it back: report.html for people, report.json for programs."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from infalign.report.record import Act, Report

__all__ = ["load_report", "main_figure_png", "main_figure_svg", "write_report"]

_FORMAT = {"format": "infalign report", "version": 1}


def write_report(report: Report, folder: str | os.PathLike[str]) -> Path:
    """Write `report.json`, complete, and `report.html`, one self-contained page.

    The JSON needs no extra and is written first, so that no result is lost where the page cannot
    be drawn.

    Args:
        report: what to say.
        folder: made if missing; files of the same name are replaced.

    Returns:
        The path of `report.html`.

    Raises:
        ImportError: without matplotlib and jinja2; the message says how to install them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_report(Report("Empty", acts=[]), folder)
        ...     load_report(page.with_name("report.json")).title
        'Empty'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = _FORMAT | dataclasses.asdict(report)
    data = folder / "report.json"
    _replace(data, json.dumps(record, indent=1, allow_nan=False) + "\n")
    _require_extra(f"{data} is written and complete; only the page is missing.")
    from infalign.report.page import render

    page = folder / "report.html"
    _replace(page, render(report))
    return page


def load_report(path: str | os.PathLike[str]) -> Report:
    """The record that `write_report` wrote: equal to it, field by field.

    Raises:
        ValueError: where the file is not a report, or one of another version.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or only a part of it: {error}.") from error
    header = {k: record.pop(k, None) for k in _FORMAT} if isinstance(record, dict) else record
    if header != _FORMAT:
        raise ValueError(
            f"{path} starts with {str(header)[:80]}; load_report reads {_FORMAT}. Write it again "
            "with this version of infalign."
        )
    try:
        # Strict: a number that became a string in the file is a damaged file, not a number.
        return TypeAdapter(Report).validate_json(json.dumps(record), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path} is not a complete report: {where}: {first['msg']}.") from error


def main_figure_svg(act: Act, path: str | os.PathLike[str]) -> Path:
    """The act's main figure as an SVG file that is light or dark as its reader's system is."""
    _require_main_figure(act)
    from infalign.report.figures import canvas, frontier
    from infalign.report.figures.palette import Palette

    with canvas.drawing():
        figure = frontier.draw(act, Palette([act]), narrow=False)
        title = f"{act.procedure} win rate against KL"
        text = canvas.svg(figure, "main", title, frontier.alt(act), standalone=True)
    return _replace(Path(path), text + "\n")


def main_figure_png(act: Act, path: str | os.PathLike[str]) -> Path:
    """The act's main figure as a PNG in light colours, twice the size it is shown at."""
    _require_main_figure(act)
    from infalign.report.figures import canvas, frontier
    from infalign.report.figures.palette import Palette

    with canvas.drawing():
        canvas.png(frontier.draw(act, Palette([act]), narrow=False), os.fspath(path))
    return Path(path)


def _replace(path: Path, text: str) -> Path:
    """All of the new file or all of the old one, never half of either."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(text.encode("utf-8", "replace"))
    partial.replace(path)
    return path


def _require_main_figure(act: Act) -> None:
    _require_extra()
    if not act.frontiers:
        raise ValueError(
            f"Act {act.title!r} has no frontiers; the main figure has one panel for each. Fill "
            "Act.frontiers."
        )


def _require_extra(kept: str = "") -> None:
    missing = [m for m in ("matplotlib", "jinja2") if importlib.util.find_spec(m) is None]
    if missing:
        raise ImportError(
            f"The report's page and figures need {' and '.join(missing)}, which this environment "
            f"lacks. Install the extra: pip install 'infalign[report]'. {kept}".rstrip()
        )
