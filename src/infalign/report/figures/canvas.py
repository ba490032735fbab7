"""Panels to draw on, and the SVG that comes out: small, themed, alone on its ids, with alt text.

Figures are laid out in CSS pixels (72 dots per inch, so one point is one pixel), twice each: a
wide one with panels side by side and a narrow one with panels stacked, so that text stays
readable on a phone. Text stays text, set in the reader's system font; the layout reserves room
for DejaVu Sans, which is wider than those, so that labels never grow into each other.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from infalign.report.figures.palette import DARK, LIGHT
from infalign.report.numbers import printable, shorten

__all__ = ["drawing", "key", "legend", "legend_columns", "panels", "percent_axis", "png", "svg"]

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 12,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.titlecolor": LIGHT["ink"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 1,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "legend.labelcolor": LIGHT["ink"],
    "lines.linewidth": 2,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "infalign",
    "path.simplify": True,
}
WIDE, NARROW = 760, 332
"""Pixels across: the page's column, and a phone's."""


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """The style of every figure, for as long as one is drawn and saved."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that DejaVu lacks is still set by the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def panels(
    number: int, *, narrow: bool, height: int, columns: int, legend_rows: int = 0, **subplots: Any
) -> tuple[Figure, list[Any]]:
    """A figure with `number` axes: `columns` across when wide, stacked when narrow.

    Args:
        number: panels wanted.
        narrow: for a phone.
        height: pixels per row of panels.
        columns: panels side by side in the wide figure.
        legend_rows: rows of legend to leave room for underneath.
        subplots: passed to `Figure.subplots`.
    """
    columns = 1 if narrow else min(columns, number)
    rows = -(-number // columns)
    pixels = (NARROW if narrow else WIDE, rows * height + 22 * legend_rows)
    figure = Figure(figsize=(pixels[0] / 72, pixels[1] / 72), dpi=72, layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=4 / 72, h_pad=5 / 72, wspace=0.04, hspace=0.07 if narrow else 0.04)
    grid = figure.subplots(rows, columns, squeeze=False, **subplots).ravel()
    for empty in grid[number:]:
        empty.set_axis_off()
    return figure, list(grid[:number])


def key(label: str, **look: Any) -> Line2D:
    """An entry of the legend: a line without points, drawn as its series is."""
    return Line2D([], [], label=shorten(label, 32), **look)


def percent_axis(ax: Any) -> None:
    """Win rates up the side in whole percent, on every panel."""
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u00a0%"))
    ax.tick_params(labelleft=True)


def legend_columns(handles: Sequence[Any], *, narrow: bool) -> int:
    """How many entries fit side by side: long names get fewer columns."""
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    return 1 if narrow else 3 if longest <= 29 else 2


def legend(figure: Figure, handles: Sequence[Any], *, columns: int) -> None:
    """One legend under all panels, outside of the axes."""
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside lower left",
            ncols=columns,
            handlelength=2.6,
            columnspacing=1.6,
            borderaxespad=0.3,
            labelspacing=0.55,
        )


def svg(figure: Figure, name: str, title: str, alt: str, *, standalone: bool = False) -> str:
    """The figure as SVG text.

    Args:
        figure: what was drawn.
        name: starts every id in the SVG, so that several can stand in one page.
        title: short name of the figure, for assistive technology.
        alt: what is seen, in numbers.
        standalone: a file of its own that brings its colours, rather than a part of a page.
    """
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(buffer.getvalue())
    _tidy(root)
    _rename_ids(root, name)
    _describe(root, name, title, alt)
    if standalone:
        _bring_colours(root)
    else:
        del root.attrib["width"], root.attrib["height"]
    return ElementTree.tostring(root, encoding="unicode")


def png(figure: Figure, path: str) -> None:
    """The figure as a PNG on the light theme's ground, at twice its size."""
    look = {"facecolor": LIGHT["card"], "bbox_inches": "tight", "pad_inches": 12 / 72}
    figure.savefig(path, format="png", dpi=144, metadata={"Software": ""}, **look)


def _tidy(root: ElementTree.Element) -> None:
    """Drop metadata and page-wide styles; colours become variables, fonts the system's."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    roles = {colour: f"var(--{role})" for role, colour in LIGHT.items()}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key in ("style", "fill", "stroke"):
                value = re.sub(r"#[0-9a-f]{6}", lambda m: roles.get(m[0], m[0]), value)
                value = value.replace("'DejaVu Sans'", _FONT)
            elif key in ("d", "transform", "x", "y", "points"):
                value = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}", value)
            element.set(key, value.strip())
    # matplotlib says this once for all elements of the page; here it is inherited instead.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Keep only the ids that are pointed at, each starting with the figure's name."""
    text = ElementTree.tostring(root, encoding="unicode")
    wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                del element.attrib["id"]
                if value in wanted:
                    element.set("id", f"{name}-{value}")
            elif key == _XLINK:
                del element.attrib[key]
                element.set("href", f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))


def _describe(root: ElementTree.Element, name: str, title: str, alt: str) -> None:
    title, alt = printable(title), printable(alt)
    for position, (tag, text) in enumerate((("title", title), ("desc", alt))):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(position, element)
    root.set("role", "img")
    root.set("aria-label", f"{title}. {alt}")


def _bring_colours(root: ElementTree.Element) -> None:
    """A card of its own ground, light or dark as the reader's system is."""

    def rule(theme: dict[str, str]) -> str:
        return ":root{" + "".join(f"--{role}:{colour};" for role, colour in theme.items()) + "}"

    style = ElementTree.Element(f"{{{_SVG}}}style")
    style.text = rule(LIGHT) + "@media (prefers-color-scheme: dark){" + rule(DARK) + "}"
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    edge = 12
    size = {"width": f"{width + 2 * edge:g}", "height": f"{height + 2 * edge:g}"}
    root.attrib |= size | {"viewBox": f"{-edge} {-edge} {size['width']} {size['height']}"}
    ground = size | {"x": f"{-edge}", "y": f"{-edge}", "rx": "8", "style": "fill: var(--card)"}
    root.insert(2, style)
    root.insert(3, ElementTree.Element(f"{{{_SVG}}}rect", ground))
