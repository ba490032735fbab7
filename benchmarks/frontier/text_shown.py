"""Free text in the table, in Markdown and as a figure, from what `text.json` holds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reading import Row

__all__ = ["draw", "rows", "tables"]

World = Mapping[str, Any]
Z = 1.96
STROKES = {"online": ":", "pairs": (0, (5, 1.5))}
"""Lines of methods that are trained in two ways."""


def rows(text: Mapping[str, Any]) -> list[Row]:
    """One line: the optimal transform against raw reward at the largest KL that both pass."""
    lines = []
    for name, world in text["worlds"].items():
        read = [
            row
            for row in _compared(world, "train", "training")
            if row["method"] == "raw" and "ahead" in row
        ]
        if read:
            lines.append(_row(name, world, max(read, key=lambda row: row["kl"])))
    return lines


def _row(name: str, world: World, row: Mapping[str, Any]) -> Row:
    ahead, raw = row["ahead"], row["win_rate"]["value"]
    low, high = ahead["low"], ahead["high"]
    ours = (raw + ahead["value"] - 0.5) / (row["limit"] - 0.5)
    return Row(
        f"free text ({name}, {world['procedure']}, sampled): the optimal transform wins more than "
        f"raw reward at KL {row['kl']:g}",
        f"{_points(ahead)}; {ours:.2f} of the limit",
        f"raw reward on the same rollouts, {raw:.3f}",
        holds=None if low < 0 < high else low > 0,
    )


def _points(ahead: Mapping[str, float]) -> str:
    low, high = 100 * ahead["low"], 100 * ahead["high"]
    return f"{100 * ahead['value']:+.1f} points ({low:.1f} to {high:.1f})"


def _compared(world: World, split: str, judge: str) -> list[Mapping[str, Any]]:
    wanted = {"split": split, "judge": judge, "procedure": world["procedure"]}
    return [row for row in world["compared"] if wanted.items() <= row.items()]


def tables(text: Mapping[str, Any]) -> list[str]:
    """Markdown lines: last checkpoints, then equal KL."""
    lines: list[str] = []
    for name, world in text["worlds"].items():
        lines += [f"## Free text: {name}", "", world["about"] + ".", ""]
        lines += _last(world)
        for split in world["prompts"]:
            lines += _equal(world, split)
    return lines


def _last(world: World) -> list[str]:
    titles = ("method", "prompts", "KL", "win rate ± se", "limit", "of the limit ± se", "gold")
    lines = [_line(titles), "|---" * len(titles) + "|"]
    for method in world["methods"]:
        for split in world["prompts"]:
            row, gold = _newest(world, method, split, "training"), None
            if row is None:
                continue
            gold = _newest(world, method, split, "gold")
            cells = (
                method["title"],
                split,
                f"{row['kl']['value']:.2f} ± {row['kl']['se']:.2f}",
                _estimate(row["win_rate"]),
                f"{row['limit']:.3f}",
                f"{row['fraction']:.2f} ± {row['fraction_se']:.2f}",
                _estimate(gold["win_rate"]) if gold else "–",
            )
            lines.append(_line(cells))
    return [*lines, ""]


def _equal(world: World, split: str) -> list[str]:
    read = [
        (judge, row) for judge in ("training", "gold") for row in _compared(world, split, judge)
    ]
    if not read:
        return []
    names = {method["name"]: method["title"] for method in world["methods"]}
    ahead = ("optimal Φ ahead", "optimal Φ by pairs ahead")
    titles = (f"{split} prompts, at KL", "judge", "method", "win rate ± se", *ahead)
    lines = [_line(titles), "|---" * len(titles) + "|"]
    for judge, row in read:
        leads = [_points(row[key]) if key in row else "–" for key in ("ahead", "ahead_pairs")]
        won = _estimate(row["win_rate"])
        lines.append(_line((f"{row['kl']:g}", judge, names[row["method"]], won, *leads)))
    return [*lines, ""]


def _estimate(kept: Mapping[str, float]) -> str:
    return f"{kept['value']:.3f} ± {kept['se']:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _newest(
    world: World, method: Mapping[str, Any], split: str, judge: str
) -> Mapping[str, Any] | None:
    """The last checkpoint that this judge has judged."""
    found = list(_points_of(world, method, split, judge))
    return found[-1] if found else None


def _points_of(
    world: World, method: Mapping[str, Any], split: str, judge: str
) -> Iterator[Mapping[str, Any]]:
    wanted = {"split": split, "judge": judge, "procedure": world["procedure"]}
    for row in sorted(method["checkpoints"], key=lambda row: row["step"]):
        if wanted.items() <= row.items():
            yield row


def draw(text: Mapping[str, Any], folder: Path) -> None:
    """text.png: a line of panels per world."""
    if not text["worlds"]:
        return
    from benchmarks.frontier.figures import finish, plt

    lines = len(text["worlds"])
    figure, grid = plt.subplots(
        lines, 2, figsize=(12, 4.4 * lines + 0.8), squeeze=False, sharey="row", layout="constrained"
    )
    for line, (name, world) in zip(grid, text["worlds"].items(), strict=True):
        for axes, split in zip(line, world["prompts"], strict=True):
            _panel(axes, world, split)
            count = world["prompts"][split]
            axes.set_title(f"{name}: {count} {split} prompts, fresh samples")
            axes.set_xlabel("KL from the reference, nats per response")
        line[0].set_ylabel(f"win rate, {world['procedure']} on both sides")
    finish(figure, folder / "text.png", 4)


def _panel(axes: Any, world: World, split: str) -> None:
    from benchmarks.frontier.figures import COLOURS

    farthest = 0.0
    for method in world["methods"]:
        points = list(_points_of(world, method, split, "training"))
        if not points:
            continue
        farthest = max(farthest, *(point["kl"]["value"] for point in points))
        _method(axes, method, points, COLOURS.get(method["name"].split("-")[0], "#444444"))
    limit = world["limit"]
    axes.plot(limit["kl"], limit["win_rate"], color="black", ls="--", lw=1.2, label="limit")
    axes.axhline(0.5, color="#bbbbbb", lw=0.7, zorder=0)
    axes.set_xlim(0, farthest * 1.06 or 1.0)


def _method(
    axes: Any, method: Mapping[str, Any], points: Sequence[Mapping[str, Any]], colour: str
) -> None:
    """Where it ended, the way there as it is read between (√KL), and hollow where it was before."""
    wide = method["name"] == "optimal"
    *before, end = points
    kl, win = end["kl"]["value"], end["win_rate"]["value"]
    shares = [step / 20 for step in range(21)]
    way = [0.5 + (win - 0.5) * share for share in shares]
    stroke = STROKES.get(method["name"].partition("-")[2], "-")
    axes.plot([kl * share**2 for share in shares], way, color=colour, ls=stroke, lw=1 + wide)
    look = {"color": colour, "marker": "o", "ms": 6 if wide else 4, "zorder": 3}
    axes.errorbar(
        kl, win, Z * end["win_rate"]["se"], label=method["title"], ls=stroke, lw=1 + wide, **look
    )
    for point in before:
        axes.plot(point["kl"]["value"], point["win_rate"]["value"], mfc="white", **look)
