"""The pictures of claim 1: win rate after decoding against KL, from `result.json` alone."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

__all__ = ["COLOURS", "PLACES", "curve", "draw_all", "ended", "finish", "panel"]

COLOURS = {
    "optimal": "#0b5fa5", "exponential": "#56a0d9", "identity": "#14866d", "log": "#7cc3a9",
    "max_at_n": "#7a3e9d", "max_reward_at_n": "#b58acb", "qrpo": "#3d4db7",
    "qrpo_published": "#8f9be0", "vbon": "#4f9aa8", "raw": "#c8323c", "normalised": "#ea7f4b",
    "log_sigmoid": "#d9a520", "ipo": "#6b6b6b", "dpo": "#a3a3a3", "bonbon": "#7d4a2f",
    "weighted_sft": "#b98e6e", "raft": "#d8bda4",
}  # fmt: skip
GROUPS = {
    "transforms of the quantile": ("exponential", "identity", "log"),
    "RL on other rewards": ("raw", "normalised", "log_sigmoid"),
    "pairs and picks": ("ipo", "dpo", "bonbon", "weighted_sft", "raft", "vbon"),
    "told the procedure": ("max_at_n", "max_reward_at_n", "qrpo", "qrpo_published"),
}
PLACES = (
    ("openings", "best-of-4", "one-token openings"),
    ("openings", "worst-of-4", "one-token openings"),
    ("answers", "best-of-4", "AlpacaEval answers"),
    ("harmless", "worst-of-4", "HH harmless"),
)
"""World, procedure and how figures name the world."""
FRONT = ("optimal", "max_at_n", "bonbon", "identity", "ipo", "raw")
FARTHEST = 2.6
"""Nats shown."""
Z = 1.96


def draw_all(result: Mapping[str, Any], folder: Path) -> None:
    """front.png, methods.png, by_n.png and gold.png; those that the result has points for."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    there = {(point["world"], point["procedure"]) for point in result["points"]}
    places = [place for place in PLACES if place[:2] in there]
    if ("openings", "best-of-4") in there:
        _front(result, folder / "front.png")
    if places:
        _methods(result, places, folder / "methods.png")
        _by_n(result, places, there, folder / "by_n.png")
        _gold(result, places, folder / "gold.png")


def curve(result: Mapping[str, Any], procedure: str, what: str) -> tuple[list[float], list[float]]:
    """`limit` against KL, from 0: solved when the result was made."""
    known = result["limits"][procedure]
    return known["kl"], known[what]


def ended(result: Mapping[str, Any], **where: str) -> dict[str, dict[str, list[float]]]:
    """Where the runs of each method ended, by method."""
    return {
        point["method"]: point
        for point in result["points"]
        if all(point[key] == value for key, value in where.items())
    }


def panel(
    axes: Axes,
    result: Mapping[str, Any],
    where: Mapping[str, str],
    methods: Sequence[str],
    judge: str = "training",
    bold: Sequence[str] = ("optimal",),
) -> None:
    """The limit, the ceiling of the listed responses, and every run with its 95 % interval."""
    if judge == "training":
        kls, limit = curve(result, where["procedure"], "limit")
        axes.plot(kls, limit, color="black", lw=1.2, ls="--", label="limit, continuous rewards")
        listed = [case for case in result["cases"] if _matches(case, where)]
        style = {"ls": "none", "marker": "_", "ms": 11, "color": "black"}
        kls, most = [case["kl"] for case in listed], [case["ceiling"] for case in listed]
        axes.plot(kls, most, **style, label="most found, these responses")
    points = ended(result, **where)
    for name in (*methods, *(b for b in bold if b not in methods)):
        if name not in points or judge not in points[name]:
            continue
        point, wide = points[name], name in bold
        label = result["titles"].get(name, name)
        errors = [Z * se for se in point[f"{judge}_se"]]
        look = {"lw": 2.2 if wide else 1.2, "ms": 5 if wide else 3.5, "zorder": 3 if wide else 2}
        colour = COLOURS.get(name, "#444444")
        kl, won = point["kl"], point[judge]
        axes.errorbar(kl, won, errors, color=colour, marker="o", label=label, **look)
    axes.axhline(0.5, color="#bbbbbb", lw=0.7, zorder=0)
    axes.set_xlim(0, FARTHEST)


def finish(figure: Any, path: Path, columns: int = 5) -> None:
    """One legend below all panels; written at 1200 pixels."""
    labels: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    handles = list(labels.values())
    figure.legend(
        handles, list(labels), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    plt.close(figure)
    with Image.open(buffer) as picture:  # few colours: a third of the size
        picture.convert("RGB").quantize(128).save(path, optimize=True)


def _matches(record: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    return all(record[key] == value for key, value in where.items())


def _front(result: Mapping[str, Any], path: Path) -> None:
    figure, both = plt.subplots(1, 2, figsize=(12, 5.4), sharey=True, layout="constrained")
    world = result["worlds"]["openings"]
    titles = {
        "train": f"{world['prompts']} prompts trained on",
        "held-out": f"{world['held_out']} held-out prompts",
    }
    for axes, (split, title) in zip(both, titles.items(), strict=True):
        where = {"world": "openings", "procedure": "best-of-4", "split": split}
        panel(axes, result, where, FRONT)
        axes.set(title=title, xlabel="KL from the reference, nats per response", ylim=(0.48, 1.0))
    both[0].set_ylabel("best-of-4 win rate over the reference, by the reward trained on")
    figure.suptitle("SmolLM2-135M, one-token answers, trained through LoRA: same prompts and steps")
    finish(figure, path, 4)


def _methods(result: Mapping[str, Any], places: Sequence[Any], path: Path) -> None:
    size = (12, 2.6 * len(places) + 1)
    shape = {"sharey": "row", "squeeze": False, "layout": "constrained"}
    figure, grid = plt.subplots(len(places), len(GROUPS), figsize=size, **shape)
    for number, (line, (world, procedure, title)) in enumerate(zip(grid, places, strict=True)):
        for axes, (group, methods) in zip(line, GROUPS.items(), strict=True):
            panel(axes, result, _trained(world, procedure), methods)
            if number == 0:
                axes.set_title(group)
            if number == len(places) - 1:
                axes.set_xlabel("KL, nats")
        line[0].set_ylabel(f"{title}\n{procedure} win rate")
    finish(figure, path, 4)


def _by_n(result: Mapping[str, Any], places: Sequence[Any], there: Any, path: Path) -> None:
    size = (12, 2.6 * len(places) + 0.6)
    figure, grid = plt.subplots(len(places), 3, figsize=size, squeeze=False, layout="constrained")
    for number, (line, (world, procedure, title)) in enumerate(zip(grid, places, strict=True)):
        for axes, n in zip(line, (2, 4, 16), strict=True):
            named = procedure.replace("4", str(n))
            if (world, named) not in there:
                axes.set_visible(False)
                continue
            panel(axes, result, _trained(world, named), ("exponential", "identity", "raw"))
            axes.set_ylabel(f"{named} win rate")
            axes.set_title(title if n == 2 else "", loc="left")
            if number == len(places) - 1:
                axes.set_xlabel("KL, nats")
    finish(figure, path, 6)


def _gold(result: Mapping[str, Any], places: Sequence[Any], path: Path) -> None:
    shown = ("identity", "raw", "normalised", "ipo")
    size = (12, 4.2)
    figure, line = plt.subplots(1, len(places), figsize=size, squeeze=False, layout="constrained")
    for axes, (world, procedure, title) in zip(line[0], places, strict=True):
        panel(axes, result, _trained(world, procedure), shown, "gold")
        axes.set(title=title, xlabel="KL, nats", ylabel=f"{procedure} win rate, gold judge")
    finish(figure, path, 5)


def _trained(world: str, procedure: str) -> dict[str, str]:
    return {"world": world, "procedure": procedure, "split": "train"}
