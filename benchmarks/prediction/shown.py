"""What claim 2 shows: how often runs end where they were predicted to, and why not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
    "training": ("training (or new prompts)", "#c8323c"),
}
Z = 1.96


NETWORKS = ("openings",)
"""Worlds with a language model; the others are free tables."""


def rows(result: Mapping[str, Any]) -> list[Row]:
    """Training prompts, tables and networks apart; and the planner's word on K rollouts."""
    cases = [case for case in records(result) if case["split"] == "train"]
    told = []
    for network, kind in ((False, "free tables"), (True, "a network")):
        some = [case for case in cases if (case["world"] in NETWORKS) == network]
        if some:
            told.append(_agreeing(told_of(some), kind))
    known = [group for group in result["groups"] if "planner" in group]
    if known:
        median, perfect = (
            max(group[stage]["median"] for group in known) for stage in ("planner", "curve")
        )
        told.append(
            Row(
                "the planner foresees what K = 16 and 64 calibration rollouts cost",
                f"median difference {_points(median)} points",
                f"perfect calibration assumed: {_points(perfect)} points",
                median < perfect,
            )
        )
    return told


def _agreeing(told: Mapping[str, Any], kind: str) -> Row:
    last, curve, short = told["last"], told["curve"], told["parts"]["training"]["mean"]
    return Row(
        f"win rates of {kind} are those predicted from responses, K and KL, {last['runs']} cases",
        f"{_share(last['close'])} within half a point, {_share(last['inside'])} of predictions in "
        f"the 95 % interval; median {_points(last['median'])} points off, at most "
        f"{_points(last['most'])}; training is {_points(short)} off its optimum",
        f"the curve for continuous rewards: {_share(curve['close'])} within half a point, median "
        f"{_points(curve['median'])} points off",
        max(last["close"], last["inside"]) >= 0.9,
    )


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """predicted.png and parts.png."""
    _predicted(result, folder / "predicted.png")
    _parts(result["groups"], folder / "parts.png")


def _predicted(result: Mapping[str, Any], path: Path) -> None:
    """Measured against predicted: by the curve, and with all that is known before training."""
    cases = [case for case in records(result) if case["split"] == "train"]
    figure, both = _figure(10.5, 4.9, 2)
    panels = {
        "curve": "Predicted by the curve: Φ, procedure and KL",
        "last": "… and with these responses and these K rollouts",
    }
    for axes, (stage, title) in zip(both, panels.items(), strict=True):
        axes.plot([0.5, 1], [0.5, 1], color="black", lw=0.8)
        for world in dict.fromkeys(case["world"] for case in cases):
            some = [at_last(case) for case in cases if case["world"] == world]
            _points_of(axes, some, stage, world)
        least = min(min(case["win_rate"], case["curve"]) for case in cases) - 0.02
        axes.set(xlim=(least, 1.005), ylim=(least, 1.005), xlabel="predicted win rate")
        axes.set_title(title, loc="left", fontsize=10)
    both[0].set_ylabel("measured win rate after decoding")
    both[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


def _points_of(axes: Axes, cases: Sequence[dict[str, Any]], stage: str, world: str) -> None:
    """A world's cases; hollow where K rollouts calibrated."""
    for sampled in (False, True):
        some = [case for case in cases if (case["k"] is not None) == sampled]
        if not some:
            continue
        axes.errorbar(
            [case[stage] for case in some],
            [case["win_rate"] for case in some],
            yerr=[Z * case[f"{stage}_se"] for case in some],
            fmt="o",
            ms=4,
            lw=0.8,
            color=COLOURS.get(world, "black"),
            mfc="white" if sampled else COLOURS.get(world, "black"),
            label=TITLES.get(world, world) + (", K = 16 or 64" if sampled else ""),
        )


def _parts(groups: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Steps from the curve to what was measured, mean over the cases of each group. Points."""
    figure, (axes,) = _figure(8.6, 1.3 + 0.5 * len(groups), 1)
    for place, group in enumerate(groups):
        start = 0.0
        for step, (name, (title, colour)) in enumerate(PARTS.items()):
            size = 100 * group["parts"].get(name, {"mean": 0.0})["mean"]
            first, y = title if place == 0 else None, place + 0.2 * (step - 1.5)
            axes.barh(y, size, left=start, height=0.19, color=colour, label=first)
            start += size
        axes.plot([start, start], [place - 0.42, place + 0.42], color="black", lw=1.4)
        axes.annotate(f"{start:+.1f}", (min(start, 0), place), (-6, 0), fontsize=8,
                      textcoords="offset points", ha="right", va="center")  # fmt: skip
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(groups)), [_named(group) for group in groups])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("win rate, points from the curve; the line is what was measured")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4,
                  frameon=False, fontsize=8)  # fmt: skip
    figure.savefig(path, dpi=110)


def _named(group: Mapping[str, Any]) -> str:
    prompts = ", new prompts" if group["split"] == "held-out" else ""
    k = "" if group["k"] is None else f", K = {group['k']}"
    return f"{TITLES.get(group['world'], group['world'])}{k}{prompts} ({group['runs']})"


def _figure(width: float, height: float, panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.subplots(1, panels, squeeze=False)[0]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(found)


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f}"
