"""The main figure: win rate after decoding against KL, prediction beside measurement."""

from typing import Any

from matplotlib.figure import Figure

from infalign.report.figures import canvas
from infalign.report.figures.palette import LIGHT, Palette
from infalign.report.finding import fraction_of_limit, limit_at, split_words
from infalign.report.measured import Estimate, Frontier, Measured
from infalign.report.numbers import percent, real, shorten
from infalign.report.record import Act

__all__ = ["alt", "draw"]


def draw(act: Act, palette: Palette, *, narrow: bool) -> Figure:
    """One panel per set of prompts, all on the same axes, one legend for them all."""
    handles = _handles(act, palette)
    columns = canvas.legend_columns(handles, narrow=narrow)
    rows = -(-len(handles) // columns)
    height = 300 if narrow else 370
    figure, axes = canvas.panels(
        len(act.frontiers),
        narrow=narrow,
        height=height,
        columns=2,
        legend_rows=rows,
        sharey=True,
    )
    right, low = _extent(act)
    for index, (ax, frontier) in enumerate(zip(axes, act.frontiers, strict=True)):
        _panel(ax, frontier, palette)
        ax.set(xlim=(0, right), ylim=(low, 1.0), title=split_words[frontier.split].capitalize())
        ax.set_xlabel("KL from the reference, nats")
        if narrow or index % 2 == 0:
            ax.set_ylabel(f"{shorten(act.procedure, 24)} win rate")
        _name_the_unreachable(ax, frontier, right, low)
        canvas.percent_axis(ax)
    canvas.legend(figure, handles, columns=columns)
    return figure


def _panel(ax: Any, frontier: Frontier, palette: Palette) -> None:
    limit = frontier.limit
    if limit is not None:
        ax.fill_between(limit.kls, limit.win_rates, 1, color=LIGHT["muted"], alpha=0.14, lw=0)
        ax.plot(limit.kls, limit.win_rates, color=LIGHT["ink"], lw=2.6, zorder=3)
    for curve in frontier.predictions:
        look = palette[curve.transform]
        ax.plot(curve.kls, curve.win_rates, color=look.colour, ls=look.dash, zorder=4, lw=1.8)
    for index, measured in enumerate(frontier.measured):
        _points(ax, measured, palette, hollow=frontier.split == "held-out", order=index)


def _name_the_unreachable(ax: Any, frontier: Frontier, right: float, low: float) -> None:
    """Words in the corner above the limit, where the limit leaves them room."""
    reached = limit_at(frontier, 0.55 * right)
    if reached is not None and reached < 1 - 0.09 * (1 - low):
        place = {"ha": "left", "va": "top", "xycoords": "axes fraction"}
        ax.annotate("no policy can be here", (0.03, 0.97), color=LIGHT["muted"], **place)


def _points(ax: Any, measured: Measured, palette: Palette, *, hollow: bool, order: int) -> None:
    look = palette[measured.policy]
    kls = [point.kl.value for point in measured.checkpoints]
    wins = [point.win_rate.value for point in measured.checkpoints]
    ax.plot(kls, wins, color=look.colour, lw=1, alpha=0.55, zorder=5)
    ax.errorbar(
        kls,
        wins,
        xerr=[_half(point.kl) for point in measured.checkpoints],
        yerr=[_half(point.win_rate) for point in measured.checkpoints],
        fmt=look.marker,
        color=look.colour,
        markerfacecolor=LIGHT["card"] if hollow else look.colour,
        markeredgecolor=look.colour if hollow else LIGHT["card"],
        markeredgewidth=1.8 if hollow else 0.8,
        markersize=7.5,
        elinewidth=1.2,
        zorder=6 + order,
    )


def _half(estimate: Estimate) -> float:
    """Half the 95 % interval; nothing where the number is exact or its error unknown."""
    ends = estimate.interval()
    return 0.0 if ends is None else (ends[1] - ends[0]) / 2


def _extent(act: Act) -> tuple[float, float]:
    """Right end of the KL axis and lower end of the win-rate axis."""
    points = [p for f in act.frontiers for m in f.measured for p in m.checkpoints]
    curves = [c for f in act.frontiers for c in (f.limit, *f.predictions) if c is not None]
    ends = [p.kl.value + _half(p.kl) for p in points] or [c.kls[-1] for c in curves if c.kls]
    lows = [p.win_rate.value - _half(p.win_rate) for p in points] + [0.5]
    return 1.12 * max([*ends, 0.1]), max(0.0, min(lows) - 0.02)


def _handles(act: Act, palette: Palette) -> list[Any]:
    handles: dict[str, Any] = {}
    if any(frontier.limit for frontier in act.frontiers):
        handles["limit"] = canvas.key("limit, any policy", color=LIGHT["ink"], lw=2.6)
    for curve in (curve for frontier in act.frontiers for curve in frontier.predictions):
        look, label = palette[curve.transform], f"{shorten(curve.transform, 18)}, predicted"
        line = canvas.key(label, color=look.colour, ls=look.dash, lw=1.8)
        handles.setdefault(f"predicted {curve.transform}", line)
    for measured in (measured for frontier in act.frontiers for measured in frontier.measured):
        look, label = palette[measured.policy], f"{shorten(measured.policy, 20)}, measured"
        point = canvas.key(label, color=look.colour, marker=look.marker, lw=1, ms=7.5)
        handles.setdefault(f"measured {measured.policy}", point)
    return list(handles.values())


def alt(act: Act) -> str:
    """What the main figure shows, in numbers: every policy's last checkpoint and its limit."""
    sentences = []
    for frontier in act.frontiers:
        for measured in frontier.measured:
            if not measured.checkpoints:
                continue
            last = measured.checkpoints[-1]
            part = fraction_of_limit(frontier, last)
            share = f", {percent(part.value, 0)} of the limit" if part else ""
            sentences.append(
                f"On {split_words[frontier.split]}, {measured.policy} ends at KL "
                f"{real(last.kl.value)} nats with {percent(last.win_rate.value)}{share}."
            )
        if frontier.limit is not None and frontier.limit.kls:
            kls, wins = frontier.limit.kls, frontier.limit.win_rates
            sentences.append(
                f"The limit goes from {percent(wins[0])} at KL {real(kls[0])} to "
                f"{percent(wins[-1])} at {real(kls[-1])} nats."
            )
    return " ".join(sentences) or "Predicted curves only; no policy was measured."
