"""What claim 7 shows: the measured matrix beside the planner's, and their largest difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from benchmarks.reading import Row

__all__ = ["draw", "rows"]

TITLES = {
    "fine": "256 made responses a prompt",
    "answers": "AlpacaEval, 57 answers",
    "harmless": "HH harmless, 64 samples",
    "openings": "one-token openings, LoRA",
}
LITTLE = 2.0
"""Points that the planner's choice may lose to the best measured one."""


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
    kls = " and ".join(f"{kl:g}" for kl in sorted({matrix["kl"] for matrix in found}))
    among = ", ".join(f"{matrix['world']} {len(matrix['rows'])}" for matrix in found)
    return [
        Row(
            "the N to train for is the planner's choice, whatever decodes "
            f"(KL {kls}; policies to choose from: {among})",
            f"best measured in {right} of {len(choices)} cases, elsewhere at most {loss:.1f} "
            f"points lost; cells are off the plan by {np.median(off):.1f} points in the median, "
            f"at most {off.max():.0f}; by {np.median(aware):.1f} and {aware.max():.0f} with the "
            "responses known",
            f"another of these policies: up to {untold:.0f} points less",
            bool(loss < LITTLE),
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
    height = 1.4 + 3 * (0.75 + 0.31 * len(planned))
    figure = Figure(figsize=(9.4, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_seen(matrix), x=0.02, ha="left", fontsize=11)
    panels = figure.subplots(3, 1, sharex=True)
    low, high = (100 * f([planned, measured]) for f in (np.min, np.max))
    for axes, values, name, first in (
        (panels[0], planned, "planned", "planned"),
        (panels[1], measured, "measured", "best"),
    ):
        image = axes.imshow(100 * values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        _cells(axes, image, matrix, [[f"{100 * value:.1f}" for value in row] for row in values])
        for column, choice in enumerate(matrix["choices"]):
            row = matrix["rows"].index(choice[first])
            box = (column - 0.48, row - 0.46), 0.96, 0.92
            axes.add_patch(Rectangle(*box, fill=False, ec="#e8262d", lw=2))
        axes.set_title(f"{name}, %; boxed: the best to decode so", loc="left", fontsize=9)
    figure.colorbar(image, ax=panels[:2], label="win rate, %", pad=0.01, aspect=30)
    most = 100 * float(np.abs(off).max())
    image = panels[2].imshow(100 * off, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    each = zip(100 * off, 196 * np.array(matrix["off_se"]), strict=True)
    texts = [[f"{v:+.1f}\n± {e:.1f}" for v, e in zip(*row, strict=True)] for row in each]
    _cells(panels[2], image, matrix, texts)
    worst = matrix["largest"]
    panels[2].set_title(
        f"measured − planned, points ± 95 %; farthest off: trained for {worst['trained_for']}, "
        f"decoded {worst['decoded_by']}", loc="left", fontsize=9,
    )  # fmt: skip
    figure.colorbar(image, ax=panels[2], label="points", pad=0.01, aspect=14)
    panels[2].set_xlabel("both sides decoded with")
    figure.savefig(path, dpi=72)


def _seen(matrix: Mapping[str, Any]) -> str:
    """What the figure shows, in two lines."""
    new = ", new prompts" if matrix["split"] == "held-out" else ""
    choices = matrix["choices"]
    right = sum(choice["planned"] == choice["best"] for choice in choices)
    loss = 100 * max(choice["loss"]["value"] for choice in choices)
    lost = "" if right == len(choices) else f"; it loses at most {loss:.1f} points"
    return (
        f"{TITLES.get(matrix['world'], matrix['world'])}{new}, KL {matrix['kl']:g} nats: of "
        f"{len(matrix['rows'])} policies the planner picks the best\n"
        f"in {right} of {len(choices)} ways to decode{lost}; its win rates are "
        f"{100 * matrix['mean_off']:.1f} points off in the mean"
    )


def _cells(
    axes: Axes, image: AxesImage, matrix: Mapping[str, Any], texts: Sequence[Sequence[str]]
) -> None:
    """Numbers in the cells, white where a cell is dark; names at the axes."""
    for (row, column), value in np.ndenumerate(image.get_array()):
        red, green, blue, _ = image.to_rgba(value)
        colour = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        size = 7 if "\n" in texts[row][column] else 8
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=size,
                  color=colour)  # fmt: skip
    short = [name.replace("-of-", " of ") for name in matrix["columns"]]
    axes.set_xticks(range(len(short)), short, rotation=25, ha="right", fontsize=8)
    axes.set_yticks(range(len(matrix["rows"])), matrix["rows"], fontsize=8)
    axes.set_ylabel("trained for", fontsize=9)
