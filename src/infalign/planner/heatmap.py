"""Heat map: the mismatch matrix as a figure, by matplotlib (the extra `report`)."""

from pathlib import Path

import numpy as np

from infalign.planner.mismatch import Mismatch

__all__ = ["write_heatmap"]

FORMATS = (".png", ".svg", ".pdf")


def write_heatmap(found: Mismatch, path: str | Path) -> Path:
    """Draw the matrix: the number is the win rate, the colour the points lost to the limit.

    Args:
        found: the matrix.
        path: a .png, .svg or .pdf file.

    Raises:
        ValueError: another kind of file.
        ImportError: without matplotlib.
    """
    path = Path(path)
    refuse_format(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = found.win_rates.shape
    figure = Figure(figsize=(2.6 + 0.95 * columns, 1.6 + 0.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lost = 100 * found.losses
    worst = float(np.fmax.reduce(lost, axis=None))
    image = axes.imshow(lost, cmap="Blues", vmin=0, vmax=max(worst, 1e-9), aspect="auto")
    for i, j in np.ndindex(rows, columns):
        colour = "white" if lost[i, j] > worst / 2 else "black"
        text = "–" if np.isnan(found.win_rates[i, j]) else f"{found.win_rates[i, j]:.3f}"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(columns), found.columns, rotation=30, ha="right")
    axes.set_yticks(range(rows), found.rows)
    axes.set_xlabel("both sides decoded with")
    axes.set_ylabel("trained for")
    axes.set_title(f"Win rate at KL {found.kl:g} nats", loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, label="points below the limit of the column")
    figure.savefig(path, dpi=160)
    return path


def refuse_format(path: Path) -> None:
    """Raise ValueError unless the file's ending is one that is drawn, in a folder that exists."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"The heat map was to be written to {path}; a name that ends in "
            f"{', '.join(FORMATS)} is needed."
        )
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write the heat map to; make it.")
