"""What claim 2 shows: how often runs end where they were predicted to, and why not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from benchmarks.prediction.recording import records
from benchmarks.prediction.summary import at_last, told_of
from benchmarks.reading import Row

__all__ = ["draw", "rows"]

TITLES = {
    "fine": "256 made responses",
    "answers": "AlpacaEval, 57 answers",
    "harmless": "HH harmless, 64 samples",
    "openings": "one-token openings, LoRA",
    "made": "made",
}
COLOURS = {
    "fine": "#6b6b6b",
    "answers": "#14866d",
    "harmless": "#c8323c",
    "openings": "#0b5fa5",
    "made": "#6b6b6b",
}
PARTS = {
    "uneven": ("uneven KL", "#d9a520"),
    "atoms": ("finitely many responses", "#14866d"),
    "rollouts": ("K rollouts", "#7a3e9d"),
    "training": ("the rest: training (or new prompts)", "#c8323c"),
}
MARKS = {"optimal": "o", "exponential": "^", "identity": "s", "log": "D"}
Z = 1.96
ENOUGH = 0.9
"""Share of intervals that is asked for; they are 95 % intervals."""
MOST = 0.9997
"""Predictions above are drawn here: 1 has no place among odds."""
NETWORKS = ("openings",)
"""Worlds with a language model; the others are free tables."""


def rows(result: Mapping[str, Any]) -> list[Row]:
    """Training prompts, tables and language model apart; and the planner's word on K rollouts."""
    cases = [case for case in records(result) if case["split"] == "train"]
    told = []
    for network, kind in ((False, "free tables"), (True, "a language model")):
        some = [case for case in cases if (case["world"] in NETWORKS) == network]
        if some:
            told.append(_agreeing(some, kind))
    for network, kind in ((False, "free tables"), (True, "a language model")):
        some = [case for case in cases if (case["world"] in NETWORKS) == network]
        if any(case["planner"] is not None for case in some):
            told.append(_planner(some, kind))
    return told


def _agreeing(cases: Sequence[dict[str, Any]], kind: str) -> Row:
    told = told_of(cases)
    last, curve, short = told["last"], told["curve"], told["parts"]["training"]["mean"]
    return Row(
        f"measured − predicted win rate has 0 in its 95 % interval, {kind}, "
        f"{last['runs']} cases in {len({case['world'] for case in cases})} world(s)",
        f"{_share(last['covered'])} of cases with responses and K known, {_share(curve['covered'])}"
        f" by the curve alone (asked: {_share(ENOUGH)}); {_points(last['median'])} points off in "
        f"the median, at most {_points(last['most'])}; in practice, {_share(last['close'])} within "
        f"half a point. What responses and K leave, {_signed(short)} points in the mean, is "
        "training as a residual, by construction",
        f"the curve for continuous rewards: {_share(curve['close'])} within half a point, median "
        f"{_points(curve['median'])} points off",
        last["covered"] >= ENOUGH,
    )


def _planner(cases: Sequence[dict[str, Any]], kind: str) -> Row:
    some = [case for case in cases if case["planner"] is not None]
    told, ks = told_of(some), sorted({case["k"] for case in some})
    planner, curve = told["planner"], told["curve"]
    return Row(
        f"the planner foresees win rates calibrated by K = {' and '.join(map(str, ks))} rollouts, "
        f"{kind}, {planner['runs']} cases",
        f"0 in the 95 % interval of {_share(planner['covered'])}; {_points(planner['median'])} "
        f"points off in the median, at most {_points(planner['most'])}",
        f"perfect calibration assumed: {_share(curve['covered'])}, {_points(curve['median'])} "
        "points off in the median",
        planner["covered"] >= ENOUGH,
    )


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """predicted.png and parts.png."""
    _predicted(result, folder / "predicted.png")
    _parts(result["groups"], folder / "parts.png")


def _predicted(result: Mapping[str, Any], path: Path) -> None:
    """Measured − predicted against predicted: by the curve, and by all known before training."""
    cases = [at_last(case) for case in records(result) if case["split"] == "train"]
    figure = Figure(figsize=(10.5, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    both = figure.subplots(1, 2, sharex=True, sharey=True)
    panels = {
        "curve": "Known: Φ, procedure, KL (the curve)",
        "last": "Known as well: these responses, these K rollouts",
    }
    for axes, (stage, title) in zip(both, panels.items(), strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.axhspan(-0.5, 0.5, color="#e4e4e4", lw=0)
        axes.axhline(0, color="black", lw=0.8)
        for case in cases:
            _mark(axes, case, stage)
        share = _share(np.mean([case[f"{stage}_covers"] for case in cases]))
        axes.set_title(f"{title}\n0 inside the interval: {share}", loc="left", fontsize=10)
        axes.set_xlabel("predicted win rate after decoding")
    _scales(both[0], cases)
    both[0].set_ylabel("measured − predicted, points (95 %)")
    figure.legend(handles=_keys(cases), loc="outside lower center", ncols=4, frameon=False,
                  fontsize=8)  # fmt: skip
    figure.savefig(path, dpi=105)


def _scales(axes: Axes, cases: Sequence[dict[str, Any]]) -> None:
    """Odds across, so that 0.98 and more has room; linear within a point, then logarithmic."""
    low = min(case[stage] for case in cases for stage in ("curve", "last")) - 0.02
    ticks = [t for t in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999) if t > low]
    axes.set_xscale("logit")
    axes.set_xticks([*ticks, MOST], [*(f"{tick:g}" for tick in ticks), "1"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, 1 - (1 - MOST) / 1.3)
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.6)
    steps = [-30, -20, -10, -5, -2, -1, -0.5, 0, 0.5]
    axes.set_yticks(steps, [f"{step:g}" for step in steps])
    axes.set_ylim(-32, 0.8)


def _mark(axes: Axes, case: Mapping[str, Any], stage: str) -> None:
    """A case: colour by world, shape by Φ, hollow where K rollouts calibrated."""
    colour = COLOURS.get(case["world"], "black")
    axes.errorbar(
        min(case[stage], MOST),
        100 * case[f"{stage}_off"],
        yerr=100 * Z * case[f"{stage}_se"],
        fmt=MARKS.get(case["method"], "v"),
        ms=4.5,
        lw=0.7,
        mew=0.9,
        color=colour,
        mfc="none" if case["k"] is not None else colour,
        alpha=0.75,
    )


def _keys(cases: Sequence[dict[str, Any]]) -> list[Line2D]:
    plain: dict[str, Any] = {"ls": "", "ms": 5}
    keys = [
        Line2D([], [], color=COLOURS.get(world, "black"), marker="o", label=TITLES[world], **plain)
        for world in dict.fromkeys(case["world"] for case in cases)
    ]
    for method in dict.fromkeys(case["method"] for case in cases):
        keys.append(Line2D([], [], color="0.3", marker=MARKS[method], label=method, **plain))
    if any(case["k"] is not None for case in cases):
        label = "hollow: calibrated by K rollouts"
        keys.append(Line2D([], [], color="0.3", marker="o", mfc="none", label=label, **plain))
    return [*keys, Patch(color="#e4e4e4", label="within half a point")]


def _parts(groups: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Steps from the curve to what was measured, mean over the cases of each group. Points."""
    figure = Figure(figsize=(9.4, 1.3 + 0.48 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    for place, group in enumerate(groups):
        start = 0.0
        for step, (name, (title, colour)) in enumerate(PARTS.items()):
            size = 100 * group["parts"].get(name, {"mean": 0.0})["mean"]
            first, y = title if place == 0 else None, place + 0.2 * (step - 1.5)
            axes.barh(y, size, left=start, height=0.19, color=colour, label=first)
            start += size
        axes.plot([start, start], [place - 0.42, place + 0.42], color="black", lw=1.4)
        axes.text(1.01, place, f"{start:+.1f}", transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(groups)), [_named(group) for group in groups])
    axes.invert_yaxis()
    axes.margins(x=0.04)
    axes.set_title("sum", loc="right", fontsize=9, x=1.06)
    axes.set_xlabel("win rate, points from the curve (mean of cases); the black line is measured")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4,
                  frameon=False, fontsize=8)  # fmt: skip
    figure.savefig(path, dpi=110)


def _named(group: Mapping[str, Any]) -> str:
    prompts = ", new prompts" if group["split"] == "held-out" else ""
    k = "" if group["k"] is None else f", K = {group['k']}"
    return f"{TITLES.get(group['world'], group['world'])}{k}{prompts} ({group['runs']})"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}"
