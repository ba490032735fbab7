"""What claim 6 tells the table, and its figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.frontier.shown import ahead, found, points_of, write_tables
from benchmarks.reading import Row

__all__ = ["draw", "rows"]

RIVALS = ("raw", "ipo", "bonbon")
"""Named by the claim."""
SHOWN = ("raw", "normalised", "ipo", "dpo", "bonbon")
WORLDS = {
    "openings": "one-token openings", "answers": "AlpacaEval answers",
    "judged_answers": "AlpacaEval, GPT-4's scores", "harmless": "HH harmless",
}  # fmt: skip


def rows(result: Mapping[str, Any]) -> list[Row]:
    """Against raw reward on the language model; then all named rivals in all worlds."""
    lines = []
    case = found(result, "openings", "identity", "train", 1.0)
    if case and "ahead" in case["methods"].get("raw", {}).get("training", {}):
        raw = case["methods"]["raw"]["training"]["win"]
        low, high = ahead(case, "raw")
        lines.append(
            Row(
                "calibration alone wins more than raw reward without any selection, KL 1 "
                "(language model with LoRA, training prompts)",
                points_of(case, "raw"),
                f"RL on the raw reward, {raw:.3f}",
                holds=None if low < 0 < high else low > 0,
            )
        )
    return lines + [row for name in RIVALS if (row := _everywhere(result, name))]


def _everywhere(result: Mapping[str, Any], name: str) -> Row | None:
    cases = [
        case
        for case in result["cases"]
        if "ahead" in case["methods"].get(name, {}).get("training", {})
    ]
    if not cases:
        return None
    gaps = [100 * case["methods"][name]["training"]["ahead"] for case in cases]
    more = sum(ahead(case, name)[0] > 0 for case in cases)
    less = sum(ahead(case, name)[1] < 0 for case in cases)
    title = result["titles"][name]
    return Row(
        f"calibration alone against {title}, ordinary win rate, all worlds and KLs",
        f"{min(gaps):+.1f} to {max(gaps):+.1f} points; significantly more in {more}, less in "
        f"{less} of {len(cases)} settings",
        title,
        holds=True if more > less == 0 else False if less > more else None,
    )


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """standard.png, and tables.md with every number."""
    from matplotlib import pyplot as plt

    from benchmarks.frontier.figures import finish, panel

    heading = ("# Ordinary win rate of every method", "", "Made from `result.json`.")
    write_tables(result, folder / "tables.md", heading)
    there = {point["world"] for point in result["points"]}
    worlds = [world for world in WORLDS if world in there]
    if not worlds:
        return
    shape = {"squeeze": False, "sharey": "row", "layout": "constrained"}
    figure, grid = plt.subplots(2, len(worlds), figsize=(12, 7), **shape)
    for line, judge in zip(grid, ("training", "gold"), strict=True):
        for axes, world in zip(line, worlds, strict=True):
            where = {"world": world, "procedure": "identity", "split": "train"}
            panel(axes, result, where, SHOWN, judge, bold=("identity",))
            axes.set(title=WORLDS[world] if line is grid[0] else "", xlabel="KL, nats")
        line[0].set_ylabel(f"ordinary win rate, {judge} reward")
    finish(figure, folder / "standard.png", 5)
