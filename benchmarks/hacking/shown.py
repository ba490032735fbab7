"""The claim's lines of the table and its figures, from `result.json` alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reading import Row

__all__ = ["draw", "rows"]

COLOURS = {
    "raw": "#c44e52",
    "normalised": "#dd8452",
    "identity": "#4c72b0",
    "optimal": "#55a868",
    "log_sigmoid": "#8c8c8c",
}
SHORT = {
    "raw": "raw reward",
    "normalised": "normalised per prompt",
    "identity": "calibrated",
    "optimal": "optimal Φ, best-of-4",
    "log_sigmoid": "log-sigmoid",
}
ENDS = {"openings": "film-review openings", "answers": "AlpacaEval answers"}


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The real exploit; a planted one that is rare and large; one that is neither."""
    kl, found = result["about"]["kl"], []
    if null := result.get("null_model"):
        found.append(_null_row(null, kl))
    name = next((name for name in ENDS if name in result["worlds"]), None)
    if name is not None:
        world = result["worlds"][name]
        found.append(_planted_row(name, world, 0.02, 10.0, kl))
        found.append(_planted_row(name, world, 0.2, 1.0, kl))
    return found


def _null_row(null: Mapping[str, Any], kl: float) -> Row:
    ours, raw = (null["ideal"][str(kl)][name] for name in ("identity", "raw"))
    gain, spared = ours["minus_raw"]["plain"]["intended"], null["spared"]["identity"]["plain"]
    return Row(
        "Calibration resists a real exploit: AlpacaEval's judge with its null model, that answer "
        f"counted last, KL {kl:g}",
        f"{points(gain)}; the exploit takes {points(spared)} more from raw reward; "
        f"{ours['gamed']['plain']:.1%} null answers",
        f"raw-reward RL, {_win(raw, 'plain'):.3f}; {raw['gamed']['plain']:.1%} null answers",
        _seen(spared),
    )


def _planted_row(name: str, world: Mapping[str, Any], share: float, size: float, kl: float) -> Row:
    row, start = (
        next(row for row in world["sweep"] if (row["share"], row["size"]) == (share, one))
        for one in (size, 0.0)
    )
    ours, raw = (
        start["methods"][method]["plain"]["intended"][0]
        - row["methods"][method]["plain"]["intended"][0]
        for method in ("identity", "raw")
    )
    saved = row["methods"]["identity"]["plain"]["spared"]
    return Row(
        f"What an exploit takes, {ENDS[name]}, KL {kl:g}: {share:.0%} of responses, +{size:g} sd",
        f"calibrated loses {100 * ours:.1f} points; raw less calibrated: {points(saved)}",
        f"raw-reward RL loses {100 * raw:.1f}",
        _seen(saved),
    )


def points(found: Sequence[float]) -> str:
    """A difference of win rates and its interval, in points.

    Example:
        >>> points([0.1203, 0.1128, 0.1277])
        '+12.0 points (11.3 to 12.8)'
    """
    value, low, high = (100 * number for number in found)
    return f"{value:+.1f} points ({low:.1f} to {high:.1f})".replace("-", "−")


def _seen(found: Sequence[float]) -> bool | None:
    return True if found[1] > 0 else False if found[2] < 0 else None


def _win(entry: Mapping[str, Any], decoding: str, judge: str = "intended") -> float:
    return entry["win_rate"][decoding][judge][0]


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """`hacking-null-model.png`: the real exploit; `hacking-planted.png`: when it matters."""
    if null := result.get("null_model"):
        _draw_null(null, folder / "hacking-null-model.png")
    worlds = {name: world for name, world in result["worlds"].items() if world.get("sweep")}
    if worlds:
        _draw_sweep(worlds, folder / "hacking-planted.png")


def _axes(rows: int, columns: int, size: tuple[float, float]) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6e6e6", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, dpi=85)
    pyplot.close(figure)


def _draw_null(null: Mapping[str, Any], path: Path) -> None:
    curves = null["curves"]
    shown = (
        ("plain intended", "win rate, null answer counted last", "one answer"),
        ("best-of-4 intended", "", "best-of-4 by the fooled judge"),
        ("gamed", "share of null answers", "how much is gamed"),
    )
    figure, axes = _axes(1, 3, (11, 3.8))
    for axis, (key, label, title) in zip(axes[0], shown, strict=True):
        for name in ("raw", "normalised", "identity", "optimal"):
            axis.plot(curves["kls"], curves[name][key], color=COLOURS[name], label=SHORT[name])
            if key != "gamed":
                _bars(axis, null["ideal"], name, key.split()[0])
        axis.set(title=title, xlabel="KL from the reference (nats)", ylabel=label)
    axes[0][2].axhline(null["reference_gamed"]["plain"], color="black", lw=0.8, ls=":")
    axes[0][2].text(3.5, null["reference_gamed"]["plain"], "reference", ha="right", va="bottom")
    axes[0][0].legend(frameon=False, fontsize=9)
    figure.suptitle("AlpacaEval's judge as the reward, its null model among the answers")
    _save(figure, path)


def _bars(axis: Any, ideal: Mapping[str, Any], name: str, decoding: str) -> None:
    for kl, found in ideal.items():
        value, low, high = found[name]["win_rate"][decoding]["intended"]
        axis.errorbar(
            [float(kl)], [value], [[value - low], [high - value]],
            color=COLOURS[name], marker="o", ms=3, capsize=2,
        )  # fmt: skip


def _draw_sweep(worlds: Mapping[str, Any], path: Path) -> None:
    some = next(iter(worlds.values()))["sweep"]
    every = sorted({row["share"] for row in some})
    shares = every[:: max(len(every) - 1, 1)]  # the rarest and the commonest
    figure, axes = _axes(len(worlds), len(shares), (4.6 * len(shares), 3.1 * len(worlds) + 0.4))
    for line, (name, world) in zip(axes, worlds.items(), strict=True):
        for axis, share in zip(line, shares, strict=True):
            _sweep_panel(axis, [row for row in world["sweep"] if row["share"] == share])
            axis.set_title(f"{name}: exploit {share:.0%} of responses", fontsize=10)
        line[0].set_ylabel("win rate by intended reward")
        for axis in line[1:]:
            axis.sharey(line[0])
    for axis in axes[-1]:
        axis.set_xlabel("what the exploit earns (sd of the reward)")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.suptitle("KL 1, one answer: what is left of the win rate when the reward can be gamed")
    _save(figure, path)


def _sweep_panel(axis: Any, some: Sequence[Mapping[str, Any]]) -> None:
    sizes = [row["size"] for row in some]
    places = range(len(sizes))
    for name in ("raw", "normalised", "identity", "optimal"):
        found = [row["methods"].get(name) for row in some]
        at = [place for place, one in zip(places, found, strict=True) if one]
        values = [one["plain"]["intended"] for one in found if one]
        axis.plot(
            at, [v[0] for v in values], color=COLOURS[name], label=SHORT[name], marker="o", ms=3
        )
        low, high = ([value[end] for value in values] for end in (1, 2))
        axis.fill_between(at, low, high, color=COLOURS[name], alpha=0.15, lw=0)
    axis.axhline(0.5, color="black", lw=0.8, ls=":")
    axis.set_xticks(list(places), [f"{size:g}" for size in sizes])
