"""What claim 7 shows: the measured matrix beside the planner's, and their largest difference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.reading import Row

__all__ = ["draw", "rows"]

TITLES = {
    "fine": "256 made responses a prompt",
    "answers": "AlpacaEval, 57 answers",
    "harmless": "HH harmless, 64 samples",
    "openings": "one-token openings, LoRA",
}


def rows(result: Mapping[str, Any]) -> list[Row]:
    """One line: cells and choices over all worlds, on the prompts trained on."""
    found = [matrix for matrix in result["matrices"] if matrix["split"] == "train"]
    if not found:
        return []
    off, aware = (
        np.concatenate([100 * np.abs(matrix[name]).ravel() for matrix in found])
        for name in ("off", "off_atoms")
    )
    choices = [choice for matrix in found for choice in matrix["choices"]]
    loss = 100 * max(choice["loss"]["value"] for choice in choices)
    right = sum(choice["planned"] == choice["best"] for choice in choices)
    untold = 100 * max(_worst_without(matrix) for matrix in found)
    return [
        Row(
            "the N to train for is the planner's choice, whatever decodes "
            f"({len(found)} worlds, KL 1)",
            f"best measured in {right} of {len(choices)} cases, elsewhere at most {loss:.1f} "
            f"points lost; cells are off the plan by {np.median(off):.1f} points in the median, "
            f"at most {off.max():.0f}; by {np.median(aware):.1f} and {aware.max():.0f} with the "
            "responses known",
            f"one N for everything: up to {untold:.0f} points less",
            bool(loss < 2),
        )
    ]


def _worst_without(matrix: Mapping[str, Any]) -> float:
    """What the wrong N costs at most, against the row that the planner chooses."""
    measured = np.array(matrix["measured"])
    chosen = [matrix["rows"].index(choice["planned"]) for choice in matrix["choices"]]
    return float((measured[chosen, range(len(chosen))] - measured.min(0)).max())


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """mismatch-<world>.png of each world."""
    for matrix in result["matrices"]:
        split = "" if matrix["split"] == "train" else "-held-out"
        _matrix(matrix, folder / f"mismatch-{matrix['world']}{split}.png")


def _matrix(matrix: Mapping[str, Any], path: Path) -> None:
    planned, measured, off = (np.array(matrix[name]) for name in ("planned", "measured", "off"))
    height = 1.3 + 3 * (0.75 + 0.3 * len(planned))
    figure = Figure(figsize=(9.4, height), layout="constrained")
    FigureCanvasAgg(figure)
    title = TITLES.get(matrix["world"], matrix["world"])
    new = ", new prompts" if matrix["split"] == "held-out" else ""
    figure.suptitle(f"{title}{new}: win rate at KL {matrix['kl']:g} nats", x=0.02, ha="left")
    low = min(planned.min(), measured.min())
    panels = figure.subplots(3, 1, sharex=True)
    for axes, values, name in ((panels[0], planned, "planned"), (panels[1], measured, "measured")):
        axes.imshow(100 * values, cmap="Blues", vmin=100 * low - 8, vmax=104, aspect="auto")
        _cells(axes, 100 * values, matrix, f"{name}, %")
    most = 100 * float(np.abs(off).max())
    panels[2].imshow(100 * off, cmap="RdBu_r", vmin=-1.5 * most, vmax=1.5 * most, aspect="auto")
    errors = 196 * np.array(matrix["off_se"])
    _cells(panels[2], 100 * off, matrix, "measured − planned, points ± 95 %", errors)
    panels[2].set_xlabel("both sides decoded with")
    figure.savefig(path, dpi=84)


def _cells(
    axes: Axes,
    values: np.ndarray,
    matrix: Mapping[str, Any],
    title: str,
    errors: np.ndarray | None = None,
) -> None:
    for row, column in np.ndindex(values.shape):
        text = f"{values[row, column]:.1f}"
        if errors is not None:
            text = f"{values[row, column]:+.1f}\n± {errors[row, column]:.1f}"
        dark = errors is None and values[row, column] > (2 * values.max() + values.min()) / 3
        colour = "white" if dark else "black"
        size = 8 if errors is None else 7
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    short = [name.replace("-of-", " of ") for name in matrix["columns"]]
    axes.set_xticks(range(len(short)), short, rotation=25, ha="right", fontsize=8)
    axes.set_yticks(range(len(matrix["rows"])), matrix["rows"], fontsize=8)
    axes.set_ylabel("trained for", fontsize=9)
    axes.set_title(title, loc="left", fontsize=9)
