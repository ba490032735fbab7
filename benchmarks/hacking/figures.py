"""The claim's figures, from `result.json` alone. All curves in them are exact optima."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ENDS", "SHORT", "draw_null", "draw_sweep"]

METHODS = ("raw", "normalised", "identity", "optimal")
SHORT = {
    "raw": "raw",
    "normalised": "normalised",
    "identity": "calibrated",
    "optimal": "optimal Φ",
}
LEGEND = {
    "raw": "raw reward",
    "normalised": "reward normalised per prompt",
    "identity": "calibrated reward",
    "optimal": "optimal Φ for best-of-4",
}
ENDS = {
    "openings": "film-review openings",
    "answers": "AlpacaEval answers",
    "harmless": "HH harmless",
}


def _panels(rows: int, columns: int, size: tuple[float, float], **more: Any) -> Any:
    from benchmarks.frontier.figures import plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained", **more
    )
    for axis in axes.ravel():
        axis.grid(color="#e6e6e6", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def draw_null(null: Mapping[str, Any], path: Path) -> None:
    """Win rate and share of null answers against KL."""
    from benchmarks.frontier.figures import COLOURS, finish

    curves = null["curves"]
    shown = (
        ("plain intended", "win rate, null answer counted last", "one answer"),
        ("best-of-4 intended", "win rate, null answer counted last", "best-of-4 by the judge"),
        ("gamed", "share of null answers", "how much is gamed, one answer"),
    )
    figure, axes = _panels(1, 3, (12, 4.2))
    for axis, (key, label, title) in zip(axes[0], shown, strict=True):
        for name in METHODS:
            axis.plot(curves["kls"], curves[name][key], color=COLOURS[name], label=LEGEND[name])
            if key != "gamed":
                _bars(axis, null["ideal"], name, key.split()[0], COLOURS[name])
        axis.set(title=title, xlabel="KL from the reference, nats", ylabel=label)
    axes[0][1].sharey(axes[0][0])
    reference = null["reference_gamed"]["plain"]
    axes[0][2].axhline(reference, color="black", lw=0.8, ls=":")
    axes[0][2].text(3.5, reference, "reference", ha="right", va="bottom")
    axes[0][2].set_ylim(bottom=0)
    figure.suptitle(
        "AlpacaEval's judge as the reward, its null model among 58 answers: exact optima, "
        "95 % intervals over prompts"
    )
    finish(figure, path, 4)


def _bars(axis: Any, ideal: Mapping[str, Any], name: str, decoding: str, colour: str) -> None:
    for kl, found in ideal.items():
        value, low, high = found[name]["win_rate"][decoding]["intended"]
        errors = [[value - low], [high - value]]
        axis.errorbar([float(kl)], [value], errors, color=colour, marker="o", ms=3, capsize=2)


def draw_sweep(worlds: Mapping[str, Any], path: Path) -> None:
    """What is left of the win rate while a planted exploit earns more; rare and common."""
    from benchmarks.frontier.figures import finish

    some = next(iter(worlds.values()))["sweep"]
    every = sorted({row["share"] for row in some})
    shares = every[:: max(len(every) - 1, 1)]  # the rarest and the commonest
    panels = [(share, decoding) for share in shares for decoding in ("plain", "best-of-4")]
    size = (12, 2.5 * len(worlds) + 1)
    figure, axes = _panels(len(worlds), len(panels), size, sharey="row", sharex=True)
    for line, (name, world) in zip(axes, worlds.items(), strict=True):
        first = name == next(iter(worlds))
        for axis, (share, decoding) in zip(line, panels, strict=True):
            rows = [row for row in world["sweep"] if row["share"] == share]
            _sweep_panel(axis, rows, decoding)
            if first:
                called = "one answer" if decoding == "plain" else decoding
                axis.set_title(f"exploit on {100 * share:g} %, {called}", fontsize=10)
        line[0].set_ylabel(f"{ENDS.get(name, name)}\nwin rate, intended reward")
    for axis in axes[-1]:
        axis.set_xlabel("exploit earns, sd of the reward")
    figure.suptitle(
        "What is left when the reward can be gamed: exact optima at KL 1, 95 % bands over prompts"
    )
    finish(figure, path, 4)


def _sweep_panel(axis: Any, some: Sequence[Mapping[str, Any]], decoding: str) -> None:
    from benchmarks.frontier.figures import COLOURS

    sizes = [row["size"] for row in some]
    places = range(len(sizes))
    for name in METHODS:
        found = [row["methods"].get(name) for row in some]
        at = [place for place, one in zip(places, found, strict=True) if one]
        values = [one["win_rate"][decoding]["intended"] for one in found if one]
        colour, line = COLOURS[name], [value[0] for value in values]
        axis.plot(at, line, color=colour, label=LEGEND[name], marker="o", ms=3)
        low, high = ([value[end] for value in values] for end in (1, 2))
        axis.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
    axis.axhline(0.5, color="black", lw=0.8, ls=":")
    axis.set_xticks(list(places), [f"{size:g}" for size in sizes])
