"""What claim 6 tells the table, and its figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.frontier.shown import (
    OTHERS,
    ahead,
    found,
    fraction,
    points_of,
    verdict,
    write_tables,
)
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
    lines = [
        _against_raw(result, "train", 1.0, "training prompts"),
        _against_raw(result, "held-out", 0.4, "held-out prompts"),
        *(_everywhere(result, name) for name in RIVALS),
        *(_everywhere(result, "raw", judge) for judge in OTHERS),
    ]
    return [line for line in lines if line]


def _against_raw(result: Mapping[str, Any], split: str, kl: float, where: str) -> Row | None:
    case = found(result, "openings", "identity", split, kl)
    if not case or "ahead" not in case["methods"].get("raw", {}).get("training", {}):
        return None
    ours, raw = (case["methods"][name]["training"]["win"] for name in ("identity", "raw"))
    return Row(
        f"calibration alone wins more than raw reward without any selection, KL {kl:g} "
        f"(language model with LoRA, {where})",
        f"{points_of(case, 'raw')}; {ours:.3f}, {fraction(case, 'identity'):.2f} of the limit",
        f"RL on the raw reward, {raw:.3f}, {fraction(case, 'raw'):.2f} of the limit",
        holds=verdict([ahead(case, "raw")]),
    )


def _everywhere(result: Mapping[str, Any], name: str, judge: str = "training") -> Row | None:
    cases = [
        case for case in result["cases"] if "ahead" in case["methods"].get(name, {}).get(judge, {})
    ]
    if not cases:
        return None
    gaps = [100 * case["methods"][name][judge]["ahead"] for case in cases]
    intervals = [ahead(case, name, judge) for case in cases]
    more, less = sum(low > 0 for low, _ in intervals), sum(high < 0 for _, high in intervals)
    title = result["titles"][name]
    by = "" if judge == "training" else f" by {OTHERS[judge]}"
    return Row(
        f"calibration alone against {title}, ordinary win rate{by}, all worlds, KLs and splits",
        f"{min(gaps):+.1f} to {max(gaps):+.1f} points; significantly more in {more}, less in "
        f"{less} of {len(cases)} correlated settings",
        title,
        holds=verdict(intervals),
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
            axes.set(title=WORLDS[world] if judge == "training" else "", xlabel="KL, nats")
        line[0].set_ylabel(f"ordinary win rate, {judge} reward")
    finish(figure, folder / "standard.png", 5)
