"""Win rate against the number of candidates, for each policy, with 95 % bands."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from infalign.report.figures import canvas
from infalign.report.figures.palette import LIGHT, Palette
from infalign.report.finding import split_words
from infalign.report.numbers import percent, real, shorten
from infalign.report.record import WinRateByN

__all__ = ["alt", "draw"]


def _groups(curves: Sequence[WinRateByN]) -> dict[tuple[str, str], list[WinRateByN]]:
    groups: dict[tuple[str, str], list[WinRateByN]] = {}
    for curve in curves:
        groups.setdefault((curve.judge, curve.split), []).append(curve)
    return groups


def draw(curves: Sequence[WinRateByN], palette: Palette, *, narrow: bool) -> Figure:
    """One panel for each judge and set of prompts."""
    groups = _groups(curves)
    handles = _handles(curves, palette)
    columns = canvas.legend_columns(handles, narrow=narrow)
    figure, axes = canvas.panels(
        len(groups),
        narrow=narrow,
        height=250 if narrow else 310,
        columns=2,
        legend_rows=-(-len(handles) // columns),
        sharey=True,
    )
    for index, (ax, ((judge, split), members)) in enumerate(zip(axes, groups.items(), strict=True)):
        for curve in members:
            _line(ax, curve, palette)
        _axes(ax, sorted({n for curve in members for n in curve.ns}))
        title = split_words[split].capitalize()
        ax.set_title(f"{title}\njudged by {shorten(judge, 22)}" if judge else title)
        if narrow or index % 2 == 0:
            ax.set_ylabel("best-of-N win rate")
    canvas.legend(figure, handles, columns=columns)
    return figure


def _line(ax: Any, curve: WinRateByN, palette: Palette) -> None:
    look = palette[curve.policy]
    ax.plot(curve.ns, [w.value for w in curve.win_rates], color=look.colour, ls=look.dash, lw=2)
    ends = [w.interval() or (w.value, w.value) for w in curve.win_rates]
    low, high = zip(*ends, strict=True) if ends else ((), ())
    ax.fill_between(curve.ns, low, high, color=look.colour, alpha=0.16, lw=0)


def _axes(ax: Any, ns: list[int]) -> None:
    ax.set_xscale("log", base=2)
    shown = [n for n in ns if n & (n - 1) == 0] or ns
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda n, _: f"{n:g}")
    canvas.percent_axis(ax)
    ax.axhline(0.5, color=LIGHT["muted"], lw=1, ls=(0, (2, 2)), zorder=0.5)
    ax.set_xlabel("N, candidates on both sides")


def _handles(curves: Sequence[WinRateByN], palette: Palette) -> list[Any]:
    handles = {}
    for curve in curves:
        look = palette[curve.policy]
        line = canvas.key(curve.policy, color=look.colour, ls=look.dash)
        handles.setdefault(curve.policy, line)
    return list(handles.values())


def alt(curves: Sequence[WinRateByN]) -> str:
    """Every curve's first and last win rate, and the KL it was measured at."""
    sentences = []
    for curve in curves:
        if not curve.ns:
            continue
        at = "" if curve.kl is None else f" (KL {real(curve.kl)} nats)"
        by = f", judged by {curve.judge}" if curve.judge else ""
        sentences.append(
            f"{curve.policy}{at} on {split_words[curve.split]}{by}: "
            f"{percent(curve.win_rates[0].value)} at N = {curve.ns[0]}, "
            f"{percent(curve.win_rates[-1].value)} at N = {curve.ns[-1]}."
        )
    return " ".join(sentences)
