"""The claim's lines of the table, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.reading import Row

__all__ = ["draw", "rows"]

Result = Mapping[str, Any]
COLOURS = {
    "all subsets": "#1f5f99",
    "with replacement": "#c0562f",
    "disjoint groups": "#7a7a7a",
    "one decode": "#b5b5b5",
    "not clustered": "#8a5fa8",
}


def rows(result: Result) -> list[Row]:
    """Three lines: bias, what an interval holds, speed."""
    law, m, n = _setting(result)
    ours, boot, groups = (
        _error(result, law, m, n, "best reward", name)
        for name in ("all subsets", "with replacement", "disjoint groups")
    )
    found = [
        Row(
            f"All subsets are unbiased: best-of-{n} from m = {m} samples, {_named(law)}",
            f"best reward off by {_share(ours)} of {ours['truth']:.3f}; largest |z| of "
            f"{_many(result)} comparisons {_largest_z(result):.1f}; variance "
            f"{(groups['sd'] / ours['sd']) ** 2:.2f} times less than disjoint groups",
            f"bootstrap with replacement, {_share(boot)}; win rates {_worst(result, law)}",
            _largest_z(result) < 4 and abs(boot["bias"]) > 4 * boot["se"],
        )
    ]
    if result["coverage"]:
        found.append(_intervals(result["coverage"]))
    return [*found, *_speed(result["speed"])]


def draw(result: Result, folder: Path) -> None:
    """Writes bias.png and speed.png."""
    figure = _empty(13.2)
    panels = figure.subplots(1, 3)
    law, m, _ = _setting(result)
    _biases(panels[0], result, law, m, "best reward")
    _biases(panels[1], result, law, m, "win rate")
    _spreads(panels[2], result, law, m)
    _save(figure, folder / "bias.png")
    figure = _empty(9.6)
    panels = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _coverages(panels[0], result["coverage"])
    _speeds(panels[1], result["speed"]["against"])
    _save(figure, folder / "speed.png")


def _setting(result: Result) -> tuple[str, int, int]:
    """Which law, m and N the table speaks of: real answers, 16 samples, best-of-4, where known."""
    laws = {row["law"] for row in result["errors"]}
    return ("AlpacaEval" if "AlpacaEval" in laws else "continuous"), 16, 4


def _named(law: str) -> str:
    return {"AlpacaEval": "AlpacaEval's answers"}.get(law, f"{law} rewards")


def _error(result: Result, law: str, m: int, n: int, quantity: str, estimator: str) -> Result:
    wanted = {"law": law, "m": m, "n": n, "quantity": quantity, "estimator": estimator}
    return next(row for row in result["errors"] if wanted.items() <= row.items())


def _share(row: Result) -> str:
    value, se = 100 * row["bias"] / row["truth"], 100 * row["se"] / row["truth"]
    return f"{value:+.2f} % ({value - 1.96 * se:+.2f} to {value + 1.96 * se:+.2f})"


def _worst(result: Result, law: str) -> str:
    wanted = {"law": law, "quantity": "win rate", "estimator": "with replacement"}
    biases = [row for row in result["errors"] if wanted.items() <= row.items()]
    low, high = (edge(biases, key=lambda row: row["bias"]) for edge in (min, max))
    told = [
        f"{100 * row['bias']:+.1f} points (N = {row['n']}, m = {row['m']})" for row in (low, high)
    ]
    return " to ".join(told)


def _ours(result: Result) -> list[Result]:
    return [row for row in result["errors"] if row["estimator"] == "all subsets"]


def _largest_z(result: Result) -> float:
    return max(abs(row["bias"]) / row["se"] for row in _ours(result))


def _many(result: Result) -> int:
    return len(_ours(result))


def _intervals(coverage: Sequence[Result]) -> Row:
    share = {
        name: [row["covered"] for row in coverage if row["estimator"] == name]
        for name in ("all subsets", "with replacement", "not clustered")
    }
    low, high = (100 * edge(share["all subsets"]) for edge in (min, max))
    boot, naive = (100 * min(share[name]) for name in ("with replacement", "not clustered"))
    first = coverage[0]
    return Row(
        f"95 % intervals clustered by prompt, {first['prompts']} prompts × {first['m']} samples",
        f"hold the truth in {low:.1f} to {high:.1f} % of experiments",
        f"bootstrap with replacement: down to {boot:.1f} %; every decoded answer counted as a "
        f"trial of its own: down to {naive:.1f} %",
        low > 93 and high < 97,
    )


def _speed(speed: Result) -> list[Row]:
    every = speed["every n"]
    slowest = max(speed["against"], key=lambda row: row["times slower"])
    size = f"{every['prompts']:,} prompts × {every['m']} samples a side, every N ≤ {every['m']}"
    seconds = (every["distinct"]["seconds"], every["100 grades"]["seconds"])
    return [
        Row(
            f"Win rates of {size}, one core",
            f"{seconds[0]:.1f} s; {seconds[1]:.1f} s with 100 grades",
            f"{slowest['rival']}: {slowest['times slower']:,.0f} times slower per prompt "
            f"({slowest['task']})",
            max(seconds) < 10,
        )
    ]


def _empty(width: float) -> Figure:
    figure = Figure(figsize=(width, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e8e8", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=120)


def _kept(result: Result, law: str, m: int, quantity: str, estimator: str) -> list[Result]:
    wanted = {"law": law, "m": m, "quantity": quantity, "estimator": estimator}
    return [row for row in result["errors"] if wanted.items() <= row.items()]


def _biases(axes: Axes, result: Result, law: str, m: int, quantity: str) -> None:
    names = ("with replacement", "disjoint groups", "all subsets")
    for shift, name in zip((0.94, 1.0, 1.06), names, strict=True):
        kept = _kept(result, law, m, quantity, name)
        unit = [row["truth"] if quantity == "best reward" else 1 for row in kept]
        heights = [100 * row["bias"] / u for row, u in zip(kept, unit, strict=True)]
        spans = [196 * row["se"] / u for row, u in zip(kept, unit, strict=True)]
        places = [row["n"] * shift for row in kept]
        axes.errorbar(places, heights, spans, fmt="o-", ms=4, color=COLOURS[name], label=name)
    axes.axhline(0, color="#5a5a5a", linewidth=1)
    _by_n(axes, [row["n"] for row in _kept(result, law, m, quantity, "all subsets")])
    axes.set_ylabel("% of the true value" if quantity == "best reward" else "points")
    what = "mean best score" if quantity == "best reward" else "win rate"
    axes.set_title(f"Bias of the {what}, {law}, m = {m}", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _spreads(axes: Axes, result: Result, law: str, m: int) -> None:
    for name in ("one decode", "disjoint groups", "with replacement", "all subsets"):
        kept = _kept(result, law, m, "win rate", name)
        places, heights = [row["n"] for row in kept], [row["sd"] for row in kept]
        axes.plot(places, heights, "o-", markersize=4, color=COLOURS[name], label=name)
    _by_n(axes, [row["n"] for row in kept])
    axes.set_ylim(0)
    axes.set_ylabel("standard deviation of one prompt's estimate")
    axes.set_title("Spread of the win rate", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _by_n(axes: Axes, ns: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.set_xlabel("N")


def _coverages(axes: Axes, coverage: Sequence[Result]) -> None:
    names = ("all subsets", "with replacement", "disjoint groups", "one decode", "not clustered")
    ns = sorted({row["n"] for row in coverage})
    for shift, name in enumerate(names):
        kept = [row for row in coverage if row["estimator"] == name]
        places = [ns.index(row["n"]) + 0.09 * (shift - 2) for row in kept]
        heights, spans = ([scale * row[key] for row in kept] for scale, key in _PERCENT)
        axes.errorbar(places, heights, spans, fmt="o", ms=4, color=COLOURS[name], label=name)
    axes.axhline(95, color="#5a5a5a", linewidth=1)
    axes.set_xticks(range(len(ns)), [f"best-of-{n}" for n in ns])
    axes.set_ylabel("experiments whose interval holds the truth, %")
    axes.set_title("95 % intervals", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


_PERCENT = ((100, "covered"), (196, "se"))


def _speeds(axes: Axes, against: Sequence[Result]) -> None:
    kept = sorted(against, key=lambda row: row["times slower"])
    places = np.arange(len(kept))
    axes.barh(places, [row["times slower"] for row in kept], color="#9fb8cf")
    for place, row in zip(places, kept, strict=True):
        text = f"{row['times slower']:,.0f}×  {row['rival']}\n{row['task']}"
        axes.annotate(text, (1.15, place), va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(1)
    axes.set_yticks([])
    axes.set_xlabel("times slower per prompt, processor time")
    axes.set_title("What else computes the same", loc="left", fontsize=10)
