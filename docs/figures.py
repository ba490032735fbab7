"""The figures of docs/choosing.md, computed and drawn: `python docs/figures.py`.

`--smoke` draws them from few points into a temporary folder: that they can be drawn at all.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from infalign import BestOfN, TiltedPolicy, frontier, optimal_transform, win_rate
from infalign.planner.heatmap import write_heatmap
from infalign.planner.mismatch import mismatch

FOLDER = Path(__file__).with_name("figures")
BLUES = ("#a6c8e4", "#6fa8d6", "#3b84bd", "#1f5f99", "#0b3c6b")
"""Light to dark with growing N or ρ."""


def drawn(width: float = 6.4, height: float = 3.8) -> tuple[Figure, Axes]:
    """An empty figure in the house style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def label_ends(axes: Axes, ends: list[tuple[float, float, str]], gap: float) -> None:
    """Names at the right ends of lines, pushed apart where they would touch."""
    floor = -np.inf
    for x, y, name in sorted(ends, key=lambda end: end[1]):
        floor = max(y, floor + gap)
        axes.annotate(
            name, (x, floor), (6, 0), textcoords="offset points", va="center", color="#333333"
        )


def frontier_by_n(path: Path, points: int) -> None:
    """W*(KL): the most that any policy wins, for several N."""
    figure, axes = drawn()
    kls = np.concatenate([[0.0], np.geomspace(0.002, 3.0, points)])
    for n, colour in zip((64, 16, 4, 2, 1), BLUES[::-1], strict=True):
        rates = frontier(BestOfN(n), kls.tolist())
        axes.plot(kls, rates, color=colour, linewidth=2, label=f"N = {n}")
    axes.legend(frameon=False, loc="lower right")
    axes.set_xlim(0, 3)
    axes.set_ylim(0.5, 1.005)
    axes.set_xlabel("KL from the reference, nats")
    axes.set_ylabel("win rate, both sides best-of-N")
    axes.set_title("The most any policy can win", loc="left", fontsize=11)
    figure.savefig(path, dpi=160)


def mismatch_map(path: Path, points: int) -> None:
    """Trained for N, decoded with M, at one nat."""
    ns = (1, 2, 4, 8, 16, 32)[: max(2, points)]
    write_heatmap(mismatch([BestOfN(n) for n in ns], 1.0), path)


def gold_by_agreement(path: Path, points: int) -> None:
    """What the judge says of best-of-N by another reward, at one nat."""
    figure, axes = drawn()
    ns = np.unique(np.rint(np.geomspace(1, 64, points)).astype(int))
    ends = []
    for rho, colour in zip((0.2, 0.4, 0.6, 0.8, 1.0), BLUES, strict=True):
        rates = []
        for n in ns.tolist():
            best = optimal_transform(BestOfN(n), kl=1.0)
            policy = TiltedPolicy(best, best.beta)
            rates.append(win_rate(policy, BestOfN(n), agreement=rho))
        axes.plot(ns, rates, color=colour, linewidth=2)
        ends.append((64.0, rates[-1], f"ρ = {rho:g}"))
    label_ends(axes, ends, 0.024)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_xlim(1, 64)
    axes.set_ylim(0.5, 1.02)
    axes.set_xlabel("N, by the reward that selects and trains")
    axes.set_ylabel("win rate by the judge")
    axes.set_title("Policies optimal for the selecting reward at 1 nat", loc="left", fontsize=11)
    figure.savefig(path, dpi=160)


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few points, nothing kept")
    smoke = parser.parse_args().smoke
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if smoke else FOLDER
        for name, draw, points in (
            ("frontier_by_n", frontier_by_n, 80),
            ("mismatch", mismatch_map, 6),
            ("gold_by_agreement", gold_by_agreement, 19),
        ):
            draw(folder / f"{name}.png", 3 if smoke else points)
            print(f"docs/figures/{name}.png")


if __name__ == "__main__":
    main()
