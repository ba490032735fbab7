"""The claim's lines of the table, and its figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.reading import Row

__all__ = ["draw", "rows"]

Result = Mapping[str, Any]
COLOURS = {"best_of_4": "#3b84bd", "best_of_16": "#0b3c6b", "worst_of_4": "#c0562f"}
NAMES = {"best_of_4": "best-of-4", "best_of_16": "best-of-16", "worst_of_4": "worst-of-4"}


def rows(result: Result) -> list[Row]:
    """Three lines: uniform, how many rollouts, plain or posterior mean."""
    found = result.get("answers") or result["made"]
    largest = max(found["uniform"], key=int)
    tests = found["uniform"][largest]["left out"]
    rejected = found["rejected prompts"]
    chance = 0.05 + 3 * (0.05 * 0.95 / min(found["prompts"], 100)) ** 0.5
    lines = [
        Row(
            f"Left-one-out quantiles are uniform: {found['prompts']} prompts × "
            f"{found['systems']} real answers",
            f"{_percent(tests['rejected'])} of KS tests reject at 5 % (distance "
            f"{tests['distance']:.3f}); per prompt {_percent(rejected['own'])}",
            f"one calibration for all prompts: rejected for {_percent(rejected['global'])} of "
            f"prompts{_lost(found, 'global')}",
            max(tests["rejected"], rejected["own"]) < chance < rejected["global"],
        )
    ]
    if row := _finite(result, found):
        lines.append(row)
    kl = _kl(found)
    steep = _cost(found, "best_of_16", kl, 32) or _cost(found, "best_of_4", kl, 16)
    if steep:
        lines.append(
            Row(
                f"The posterior mean of Φ, {_at(steep)}, K = {steep['k']}",
                f"{_points(steep['gain'])}, win rate {steep['posterior']['value']:.3f}",
                f"Φ of the plain quantile, {steep['plain']['value']:.3f}",
                steep["gain"]["low"] > 0,
            )
        )
    return lines


def _finite(result: Result, found: Result) -> Row | None:
    """What few rollouts cost, beside made scores without ties and the planner's continuous ones."""
    kl = _kl(found)
    few, enough = (_cost(found, "best_of_4", kl, k) for k in (4, 32))
    made = _cost(result.get("made", {}), "best_of_4", kl, 32)
    plan = _planner(result, "best_of_4", kl, 32)
    if few is None or enough is None or made is None or plan is None:
        return None
    ours, theirs = enough["cost"], made["cost"]
    return Row(
        f"K = {enough['k']} rollouts against perfect calibration, {_at(enough)}",
        f"{_points(ours)} lost; made scores without ties {_points(theirs)}, planner, continuous, "
        f"{plan:.1f}",
        f"K = {few['k']} rollouts: {_points(few['cost'])}",
        abs(ours["value"] - theirs["value"]) < 3 * (ours["se"] ** 2 + theirs["se"] ** 2) ** 0.5,
    )


def draw(result: Result, folder: Path) -> None:
    """Writes uniform.png, rollouts.png and plain.png."""
    found = result.get("answers") or result["made"]
    _figure(folder / "uniform.png", _pull, _distance, _medians, found=found, result=result)
    _figure(folder / "rollouts.png", _error_of_u, _costs_by_k, found=found, result=result)
    _figure(folder / "plain.png", _gains, _against, found=found, result=result)


def _figure(path: Path, *panels: Callable[..., None], found: Result, result: Result) -> None:
    figure = Figure(figsize=(4.6 * len(panels), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e8e8", linewidth=0.8)
        axes.set_axisbelow(True)
        panel(axes, found, result)
    figure.savefig(path, dpi=120)


def _pull(axes: Axes, found: Result, _: Result) -> None:
    ks = sorted(map(int, found["pull"]))
    axes.plot(ks, [1 / k for k in ks], color="#c9c9c9", linewidth=3, label="1/K")
    for way, colour in (("left in", "#c0562f"), ("left out", "#1f5f99")):
        measured = [found["pull"][str(k)][way] for k in ks]
        _bars(axes, ks, measured, color=colour, label=way)
    _titled(axes, "A rollout among its own judges is pulled to ½", "K answers", "slope of û − u")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.legend(frameon=False)


def _distance(axes: Axes, found: Result, _: Result) -> None:
    ks = sorted(map(int, found["uniform"]))
    ways = {"left out": "#1f5f99", "left in": "#c0562f", "other systems": "#7a7a7a"}
    for way, colour in ways.items():
        most = found["systems"] // 2 if way == "other systems" else max(ks)
        places = [k for k in ks if k <= most]  # half of the systems are the others
        values = [found["uniform"][str(k)][way]["distance of all"] for k in places]
        axes.plot(places, values, "o-", color=colour, label=way)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    _titled(axes, "Distance from uniform", "K answers", "KS distance, all draws together")
    axes.legend(frameon=False)


def _medians(axes: Axes, found: Result, _: Result) -> None:
    medians = found["spread"]["medians"]
    shares = np.linspace(0, 100, len(medians))
    axes.plot(shares, medians, color="#7a7a7a", linewidth=2)
    axes.axhline(0.5, color="#1f5f99", linewidth=2)
    axes.annotate("calibrated by its own answers", (1, 0.5), (0, 5), color="#1f5f99", **_TEXT)
    axes.annotate("one calibration for all", (60, 0.42), (0, 0), color="#5a5a5a", **_TEXT)
    axes.set_ylim(0, 1)
    _titled(
        axes, "What a global calibration misses", "prompts, %", "median quantile of its answers"
    )


def _error_of_u(axes: Axes, found: Result, _: Result) -> None:
    ks = np.array([row["k"] for row in found["error of u"]])
    grid = np.geomspace(ks.min(), ks.max(), 60)
    axes.plot(grid, (6 * grid) ** -0.5, color="#c9c9c9", linewidth=3, label="√(1/(6K))")
    errors = [row["rms"] for row in found["error of u"]]
    spans = [1.96 * row["se"] for row in found["error of u"]]
    axes.errorbar(ks, errors, spans, fmt="o", color="#1f5f99", label="measured")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    _titled(axes, "Error of a quantile from K answers", "K answers", "RMS error of û")
    axes.legend(frameon=False)


def _costs_by_k(axes: Axes, found: Result, result: Result) -> None:
    kl = _kl(found)
    for name, colour in COLOURS.items():
        kept = _costs(found, name, kl)
        if not kept:
            continue
        ks = [row["k"] for row in kept]
        _bars(axes, ks, [row["cost"] for row in kept], 100, color=colour, label=NAMES[name])
        made = _costs(result.get("made", {}), name, kl)
        axes.plot(
            [row["k"] * 1.06 for row in made],
            [100 * row["cost"]["value"] for row in made],
            "s",
            markerfacecolor="none",
            color=colour,
        )
        plan = [(k, p) for k in ks if (p := _planner(result, name, kl, k)) is not None]
        axes.plot([k for k, _ in plan], [p for _, p in plan], "--", color=colour, linewidth=1)
    axes.set_xscale("log", base=2)
    _by_k(axes, found)
    title = f"What finite calibration costs at KL {kl:g}"
    _titled(axes, title, "K rollouts", "points of win rate lost")
    axes.plot([], [], "s", markerfacecolor="none", color="#5a5a5a", label="made scores, no ties")
    axes.plot([], [], "--", color="#5a5a5a", linewidth=1, label="planner, continuous")
    axes.legend(frameon=False, fontsize=8)


def _gains(axes: Axes, found: Result, _: Result) -> None:
    kl = _kl(found)
    for name, colour in COLOURS.items():
        for transform, style in (("optimal", "-"), ("exponential", ":")):
            kept = _costs(found, name, kl, transform)
            label = f"{NAMES[name]}, {transform}"
            values = [row["gain"] for row in kept]
            if kept:
                ks = [row["k"] for row in kept]
                _bars(axes, ks, values, 100, color=colour, linestyle=style, label=label)
    axes.axhline(0, color="#5a5a5a", linewidth=1)
    axes.set_xscale("log", base=2)
    _by_k(axes, found)
    title = f"Posterior mean over plain quantile, KL {kl:g}"
    _titled(axes, title, "K rollouts", "points of win rate")
    axes.legend(frameon=False, fontsize=7)


def _against(axes: Axes, found: Result, _: Result) -> None:
    kl = _kl(found)
    kept = [row for row in found["compared"] if row["kl"] == kl]
    colours = {
        "calibrated": "#1f5f99",
        "standardised": "#6fa8d6",
        "global": "#9a9a9a",
        "raw": "#c0562f",
    }
    for shift, (way, colour) in enumerate(colours.items()):
        places = [i + 0.2 * shift - 0.3 for i, row in enumerate(kept) if way in row["ways"]]
        values = [row["ways"][way] for row in kept if way in row["ways"]]
        spans = [1.96 * value["se"] for value in values]
        heights = [value["value"] - 0.5 for value in values]
        axes.bar(places, heights, 0.19, bottom=0.5, color=colour, yerr=spans, label=way)
    names = [NAMES.get(row["procedure"], "undecoded") for row in kept]
    axes.set_xticks(range(len(kept)), names)
    axes.set_ylim(0.5, 1)
    _titled(axes, f"Trained on what, at equal mean KL {kl:g}", "", "win rate after decoding")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")


_TEXT: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}


def _bars(
    axes: Axes, ks: Sequence[float], values: Sequence[Result], scale: float = 1, **style: Any
) -> None:
    heights = [scale * value["value"] for value in values]
    low = [scale * (value["value"] - value["low"]) for value in values]
    high = [scale * (value["high"] - value["value"]) for value in values]
    axes.errorbar(ks, heights, (low, high), marker="o", markersize=4, capsize=2, **style)


def _by_k(axes: Axes, found: Result) -> None:
    ks = sorted({row["k"] for row in found["costs"]})
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()


def _titled(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _kl(found: Result) -> float:
    """The one that is told of those measured: the middle one."""
    kls = sorted({row["kl"] for row in found["costs"]})
    return kls[len(kls) // 2]


def _costs(found: Result, name: str, kl: float, transform: str = "optimal") -> list[Result]:
    wanted = {"procedure": name, "kl": kl, "transform": transform}
    return [row for row in found.get("costs", ()) if wanted.items() <= row.items()]


def _cost(found: Result, name: str, kl: float, k: int) -> Result | None:
    return next((row for row in _costs(found, name, kl) if row["k"] == k), None)


def _planner(result: Result, name: str, kl: float, k: int) -> float | None:
    """Points that the planner says K rollouts cost, for a continuous reward."""
    for row in result.get("planner", ()):
        if (row["procedure"], row["kl"], row["k"]) == (name, kl, k):
            return 100 * (row["perfect"] - row["finite"])
    return None


def _lost(found: Result, way: str) -> str:
    for row in found["compared"]:
        asked = (row["procedure"], row["kl"]) == ("best_of_4", _kl(found))
        if asked and way in row["differences"]:
            return f", {_points(row['differences'][way])} of win rate lost, {_at(row)}"
    return ""


def _at(row: Result) -> str:
    return f"{NAMES[row['procedure']]} at KL {row['kl']:g}"


def _points(estimate: Result) -> str:
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} points ({low:.1f} to {high:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
