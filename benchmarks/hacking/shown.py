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
    """One line of the real exploit, one of planted ones, one of where nothing is gained."""
    found = []
    if null := result.get("null_model"):
        found.append(_null_row(null, result["about"]["kl"]))
    for name, world in result["worlds"].items():
        if name in ENDS:
            found += _planted_rows(name, world)
            break
    if heads := result.get("heads"):
        ours = heads["flipped head"]["ideal"]["identity"]
        gain = ours["minus_raw"]["plain"]["intended"]
        found.append(
            Row(
                f"Corrupted head ({heads['flipped']:.0%} of labels flipped): calibrated against "
                "raw, KL 1, judged by the uncorrupted head",
                points(gain),
                f"raw-reward RL, {_win(heads['flipped head']['ideal']['raw'], 'plain'):.3f}",
                _seen(gain),
            )
        )
    return found[:3]


def _null_row(null: Mapping[str, Any], kl: float) -> Row:
    ours, raw = (null["ideal"][str(kl)][name] for name in ("identity", "raw"))
    gain = ours["minus_raw"]["plain"]["intended"]
    return Row(
        f"Calibration resists AlpacaEval's null model, a real exploit of the judge: KL {kl:g}, "
        "win rate with that answer counted last",
        f"{points(gain)}; {ours['gamed']['plain']:.1%} null answers",
        f"raw-reward RL, {_win(raw, 'plain'):.3f}; {raw['gamed']['plain']:.1%} null answers",
        _seen(gain),
    )


def _planted_rows(name: str, world: Mapping[str, Any]) -> list[Row]:
    row = next(row for row in world["sweep"] if row["share"] == 0.02 and row["size"] == 3.0)
    gain = row["methods"]["identity"]["plain"]["minus_raw"]
    return [
        Row(
            f"A rare planted exploit (2 % of responses, +3 sd), {ENDS[name]}, KL 1, judged by the "
            "reward without it",
            points(gain),
            f"raw-reward RL, {row['methods']['raw']['plain']['intended'][0]:.3f}",
            _seen(gain),
        )
    ]


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
    figure.savefig(path, dpi=110)
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
    shares = sorted({row["share"] for row in some})
    figure, axes = _axes(len(worlds), len(shares), (3.7 * len(shares), 3.1 * len(worlds) + 0.4))
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
