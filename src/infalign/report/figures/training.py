"""Reward, quantile and KL while the policies trained."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from infalign.report.figures import canvas
from infalign.report.figures.palette import LIGHT, Palette
from infalign.report.numbers import real
from infalign.report.record import TrainingCurve

__all__ = ["alt", "draw"]

_SERIES = {"reward": "Mean reward", "quantile": "Mean quantile", "kl": "KL, nats"}


def _present(curves: Sequence[TrainingCurve]) -> list[str]:
    return [name for name in _SERIES if any(getattr(curve, name) for curve in curves)]


def draw(curves: Sequence[TrainingCurve], palette: Palette, *, narrow: bool) -> Figure:
    """One panel for each of reward, quantile and KL that was logged."""
    names = _present(curves)
    looks = {curve.policy: palette[curve.policy] for curve in curves}
    handles = [canvas.key(p, color=k.colour, ls=k.dash, lw=1.8) for p, k in looks.items()]
    columns = canvas.legend_columns(handles, narrow=narrow)
    rows = -(-len(handles) // columns)
    figure, axes = canvas.panels(
        len(names), narrow=narrow, height=200 if narrow else 270, columns=3, legend_rows=rows
    )
    for ax, name in zip(axes, names, strict=True):
        for curve in curves:
            if values := getattr(curve, name):
                look = looks[curve.policy]
                ax.plot(curve.steps, values, color=look.colour, ls=look.dash, lw=1.8)
        if name == "quantile":
            ax.axhline(0.5, color=LIGHT["muted"], lw=1, ls=(0, (2, 2)), zorder=0.5)
        if name == "kl":
            ax.set_ylim(bottom=0)
        ax.set(title=_SERIES[name], xlabel="step")
        ax.margins(x=0.02)
    canvas.legend(figure, handles, columns=columns)
    return figure


def alt(curves: Sequence[TrainingCurve]) -> str:
    """First and last value of every series."""
    words = {"reward": "reward", "quantile": "quantile", "kl": "KL"}
    sentences = []
    for curve in curves:
        moves = [
            f"{words[name]} from {real(values[0])} to {real(values[-1])}"
            for name in _SERIES
            if (values := getattr(curve, name))
        ]
        if moves:
            sentences.append(f"{curve.policy}, {curve.steps[-1]:g} steps: {', '.join(moves)}.")
    return " ".join(sentences)
