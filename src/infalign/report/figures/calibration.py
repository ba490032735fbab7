"""Rewards before and after calibration: each prompt's spread, and how far from uniform they are."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from infalign.report.calibration_check import CalibrationCheck
from infalign.report.figures import canvas
from infalign.report.figures.palette import LIGHT
from infalign.report.numbers import real

__all__ = ["alt", "draw"]

_BEFORE, _AFTER = LIGHT["s2"], LIGHT["s1"]


def draw(check: CalibrationCheck, *, narrow: bool) -> Figure:
    """Spread of raw rewards by prompt, spread of quantiles by prompt, distribution functions."""
    spreads = 2 if check.spread else 0
    figure, axes = canvas.panels(
        spreads + 1,
        narrow=narrow,
        height=215 if narrow else 290,
        columns=3,
        legend_rows=2 if narrow else 1,
    )
    if spreads:
        ordered = sorted(check.spread, key=lambda p: p.rewards[1])
        _spread(axes[0], [p.rewards for p in ordered], _BEFORE)
        axes[0].set(title="Raw reward", ylabel="reward", xlabel="prompts, by median")
        _spread(axes[1], [p.quantiles for p in ordered], _AFTER)
        axes[1].set(title="Calibrated", ylabel="quantile", ylim=(0, 1))
        axes[1].set_xlabel("prompts, in the same order")
        for level in (0.1, 0.5, 0.9):
            axes[1].axhline(level, color=LIGHT["muted"], lw=1, ls=(0, (2, 2)), zorder=0.5)
    _distribution(axes[-1], check)
    handles = [
        canvas.key("before, one global scale", color=_BEFORE, ls=(0, (6, 2))),
        canvas.key("after, quantile in own prompt", color=_AFTER),
        canvas.key("uniform", color=LIGHT["muted"], ls=(0, (2, 2)), lw=1),
    ]
    canvas.legend(figure, handles, columns=1 if narrow else 3)
    return figure


def _spread(ax: Any, points: list[tuple[float, float, float]], colour: str) -> None:
    low, middle, high = np.array(points).T
    order = np.arange(1, len(points) + 1)
    width = min(3.0, 120 / len(points))
    ax.vlines(order, low, high, color=colour, lw=width, alpha=0.65)
    ax.plot(order, middle, "_", color=LIGHT["ink"], markersize=min(8, 3 + 120 / len(points)), mew=2)
    ax.set_xlim(0, len(points) + 1)
    ax.grid(axis="x", visible=False)


def _distribution(ax: Any, check: CalibrationCheck) -> None:
    for triples, colour, dash in (
        (check.before, _BEFORE, (0, (6, 2))),
        (check.after, _AFTER, "-"),
    ):
        low, mean, high = zip(*triples, strict=True)
        ax.fill_between(check.levels, low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(check.levels, mean, color=colour, ls=dash, lw=1.8)
    ax.plot([0, 1], [0, 1], color=LIGHT["muted"], lw=1, ls=(0, (2, 2)))
    ax.set(title="Distribution", xlabel="value on [0, 1]", ylabel="share at or below")
    ax.set(xlim=(0, 1), ylim=(0, 1))


def alt(check: CalibrationCheck) -> str:
    """The distances from uniform, and how far prompt medians lie apart."""
    text = (
        f"Distance from uniform (Kolmogorov–Smirnov), pooled: {real(check.ks_before, 3)} before, "
        f"{real(check.ks_after, 3)} after calibration; mean over prompts: "
        f"{real(check.prompt_ks_before, 3)} before, {real(check.prompt_ks_after, 3)} after."
    )
    if check.spread:
        rewards = [p.rewards[1] for p in check.spread]
        quantiles = [p.quantiles[1] for p in check.spread]
        text += (
            f" Prompt medians range from {real(min(rewards))} to {real(max(rewards))} in raw "
            f"reward and from {real(min(quantiles))} to {real(max(quantiles))} in quantile, "
            f"over {len(check.spread)} prompts."
        )
    return text
