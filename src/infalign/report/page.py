"""report.html: every part of every act that is there, on one page that needs nothing else.

The page carries its style and its figures; it has no script and asks the network for nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from infalign.report import behind_figures as behind
from infalign.report import tables
from infalign.report.figures import by_n, calibration, canvas, frontier, training
from infalign.report.figures.palette import DARK, LIGHT, Palette
from infalign.report.finding import headline, split_words
from infalign.report.numbers import duration, percent, printable, real
from infalign.report.record import Act, Report
from infalign.report.tables import Table

__all__ = ["render"]

_ANSWERS_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class FigureView:
    """A figure in both widths, with what is said under it."""

    title: str
    wide: Markup
    narrow: Markup
    caption: str
    tables: tuple[Table, ...]


@dataclasses.dataclass(frozen=True)
class ActView:
    """One act, ready for the template; parts that are absent are None or empty."""

    id: str
    act: Act
    headline: str
    main: FigureView | None
    fractions: Table | None
    comparisons: tuple[Table, ...]
    ideal: Table | None
    decompositions: tuple[Table, ...]
    calibration: FigureView | None
    training: FigureView | None
    by_n: FigureView | None
    cost: Table | None


def render(report: Report) -> str:
    """The whole page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda v: printable(v) if isinstance(v, str) and type(v) is str else v,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "real": real, "duration": duration}
    palette = Palette(report.acts)
    acts = [_view(act, f"act{i + 1}", palette) for i, act in enumerate(report.acts)]
    return environment.get_template("template.html").render(
        report=report,
        acts=acts,
        cost=tables.cost(report.cost),
        palette=palette,
        split_words=split_words,
        answers_shown=_ANSWERS_SHOWN,
        light=_variables(LIGHT),
        dark=_variables(DARK),
    )


def _variables(theme: dict[str, str]) -> Markup:
    return Markup(" ".join(f"--{role}: {colour};" for role, colour in theme.items()))


def _view(act: Act, name: str, palette: Palette) -> ActView:
    return ActView(
        id=name,
        act=act,
        headline=headline(act),
        main=_main(act, f"{name}-main", palette) if act.frontiers else None,
        fractions=tables.fractions(act),
        comparisons=tuple(tables.comparisons(act)),
        ideal=tables.ideal(act.ideal, act.procedure),
        decompositions=tuple(tables.decomposition(d) for d in act.decompositions),
        calibration=_calibration(act, f"{name}-calibration"),
        training=_training(act, f"{name}-training", palette),
        by_n=_by_n(act, f"{name}-by-n", palette),
        cost=tables.cost(act.cost),
    )


def _figure(
    name: str,
    title: str,
    alt: str,
    draw: Callable[[bool], Figure],
    caption: str,
    numbers: Sequence[Table | None],
) -> FigureView:
    with canvas.drawing():
        wide = canvas.svg(draw(False), f"{name}-wide", title, alt)
        narrow = canvas.svg(draw(True), f"{name}-narrow", title, alt)
    found = tuple(table for table in numbers if table is not None)
    # Safe: ElementTree wrote this SVG, every text in it escaped.
    return FigureView(title, Markup(wide), Markup(narrow), caption, found)


def _main(act: Act, name: str, palette: Palette) -> FigureView:
    judges = list(dict.fromkeys(f.judge or act.reward for f in act.frontiers))
    notes = list(dict.fromkeys(f.note for f in act.frontiers if f.note))
    caption = " ".join(
        [
            f"Both sides decoded by {act.procedure}, judged by {' and '.join(judges)}. Curves are",
            "predictions, points are measurements along training with 95 % intervals; hollow",
            "points are held-out prompts.",
            *notes,
        ]
    )
    tables_of = (behind.frontier_curves, behind.frontier_points)
    numbers = [table(f) for f in act.frontiers for table in tables_of]
    return _figure(
        name,
        f"{act.procedure} win rate against KL",
        frontier.alt(act),
        lambda narrow: frontier.draw(act, palette, narrow=narrow),
        caption,
        numbers,
    )


def _calibration(act: Act, name: str) -> FigureView | None:
    check = act.calibration
    if check is None:
        return None
    caption = (
        f"Distance from uniform (Kolmogorov–Smirnov): pooled {real(check.ks_before, 3)} before and "
        f"{real(check.ks_after, 3)} after; mean over prompts {real(check.prompt_ks_before, 3)} "
        f"before and {real(check.prompt_ks_after, 3)} after, where {check.k} perfectly uniform "
        f"draws would show about {real(0.87 / check.k**0.5, 3)}. Bars: the middle 80 % of each "
        f"prompt's rollouts, with the median. {check.note}"
    )
    return _figure(
        name,
        "Rewards before and after calibration",
        calibration.alt(check),
        lambda narrow: calibration.draw(check, narrow=narrow),
        caption,
        [behind.calibration(check)],
    )


def _training(act: Act, name: str, palette: Palette) -> FigureView | None:
    curves = [c for c in act.training if c.steps and (c.reward or c.quantile or c.kl)]
    if not curves:
        return None
    return _figure(
        name,
        "Reward, quantile and KL during training",
        training.alt(curves),
        lambda narrow: training.draw(curves, palette, narrow=narrow),
        "As logged while training; the dotted line is the reference's mean quantile, ½.",
        [behind.training(curves)],
    )


def _by_n(act: Act, name: str, palette: Palette) -> FigureView | None:
    curves = [c for c in act.win_rate_by_n if c.ns]
    if not curves:
        return None
    at = [f"{c.policy} {real(c.kl)}" for c in curves if c.kl is not None]
    caption = "Policy and reference both decoded by best-of-N; bands are 95 % intervals."
    if at:
        caption += f" KL in nats: {', '.join(dict.fromkeys(at))}; not equal, so compare with care."
    return _figure(
        name,
        "Win rate by number of candidates",
        by_n.alt(curves),
        lambda narrow: by_n.draw(curves, palette, narrow=narrow),
        caption,
        [behind.win_rate_by_n(curves, act.reward)],
    )
