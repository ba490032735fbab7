"""report.html: every part of every act that is there, on one page that needs nothing else.

The page carries its style and its figures and asks the network for nothing. It runs no script,
except inside the planner's own frame, which is walled off from the rest.
"""

import dataclasses
import html
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from infalign.planner.page import page_html, startable
from infalign.report import behind_figures as behind
from infalign.report import tables
from infalign.report.figures import by_n, calibration, canvas, frontier, training
from infalign.report.figures.palette import DARK, LIGHT, Palette
from infalign.report.finding import has_ideal, has_limit, headline, split_words
from infalign.report.numbers import duration, percent, printable, real
from infalign.report.record import Act, Report, TrainingCurve, WinRateByN
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

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Keys and short names of the parts that are there, in their order on the page."""
        named = {
            "ideal": ("ideal", self.ideal),
            "main": ("win rate against KL", self.main),
            "equal-kl": ("equal KL", self.comparisons),
            "distance": ("distance", self.decompositions),
            "calibration": ("calibration", self.calibration),
            "training": ("training", self.training),
            "by-n": ("by N", self.by_n),
            "answers": ("answers", self.act.answers),
            "cost": ("cost", self.cost),
        }
        return [(key, title) for key, (title, part) in named.items() if part]


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
        planner=_planner(report),
        palette=palette,
        split_words=split_words,
        limits=any(has_limit(f) or f.limit for act in report.acts for f in act.frontiers),
        ideals=any(map(has_ideal, report.acts)),
        answers_shown=_ANSWERS_SHOWN,
        light=_variables(LIGHT),
        dark=_variables(DARK),
    )


def _planner(report: Report) -> Markup | None:
    """The planner's whole page as the text of an attribute, started at the first act's plan."""
    plan = next((act.plan for act in report.acts if act.plan), None)
    return None if plan is None else Markup(html.escape(page_html(**startable(plan))))


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
        decompositions=tuple(
            map(tables.decomposition, act.decompositions if has_ideal(act) else ())
        ),
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
    curves = any(f.limit or f.predictions for f in act.frontiers)
    caption = " ".join(
        [
            f"Both sides decoded by {act.procedure}, judged by {' and '.join(judges)}.",
            "Curves are predictions, points" if curves else "Points",
            "are measurements along training with 95\u00a0% intervals; hollow points are held-out",
            "prompts.",
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
    bars = "Bars: the middle 80\u00a0% of each prompt's rollouts, with the median. "
    caption = (
        f"{bars if check.spread else ''}Distribution: mean over prompts, with the band that holds "
        "80\u00a0% of prompts. "
        "Each prompt's distance from uniform (Kolmogorov–Smirnov, mean over prompts): "
        f"{real(check.prompt_ks_before)} before and {real(check.prompt_ks_after)} after, where "
        f"{check.k} perfectly uniform draws would show about {real(0.87 / check.k**0.5)}; of all "
        f"rollouts pooled: {real(check.ks_before)} and {real(check.ks_after)}. {check.note}"
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
    caption = "As logged while training."
    if any(c.quantile for c in curves):
        caption += " The dotted line is the reference's own mean quantile, ½."
    caption += _unlogged(act, curves)
    return _figure(
        name,
        "Reward, quantile and KL during training",
        training.alt(curves),
        lambda narrow: training.draw(curves, palette, narrow=narrow),
        caption,
        [behind.training(curves)],
    )


def _unlogged(act: Act, curves: Sequence[TrainingCurve]) -> str:
    """Why a policy has no line in a panel where others have one."""
    trained = {m.policy: m.transform for f in act.frontiers for m in f.measured}
    said = ""
    for series, word in (("reward", "reward"), ("quantile", "quantile"), ("kl", "KL")):
        without = [c.policy for c in curves if not getattr(c, series)]
        for policy in without if len(without) < len(curves) else ():
            on = f", trained on {trained[policy]}," if policy in trained else ""
            said += f" {policy}{on} logged no {word}."
    return said


def _by_n(act: Act, name: str, palette: Palette) -> FigureView | None:
    curves = [c for c in act.win_rate_by_n if c.ns]
    if not curves:
        return None
    caption = (
        "Policy and reference both decoded by best-of-N; bands are 95\u00a0% intervals. "
        + _measured_kl(curves)
    )
    return _figure(
        name,
        "Win rate by number of candidates",
        by_n.alt(curves),
        lambda narrow: by_n.draw(curves, palette, narrow=narrow),
        caption,
        [behind.win_rate_by_n(curves, act.reward)],
    )


def _measured_kl(curves: Sequence[WinRateByN]) -> str:
    """Each policy's own KL, and a warning where they are too unequal to compare win rates."""
    known = [c for c in curves if c.kl is not None]
    if not known:
        return ""
    listed = dict.fromkeys(f"{c.policy} {real(c.kl)} ({split_words[c.split]})" for c in known)
    text = f"KL in nats: {', '.join(listed)}."
    for split in split_words:
        kls = [c.kl for c in known if c.split == split and c.kl is not None]
        if kls and max(kls) > 1.05 * min(kls):
            return f"{text} Unequal KL: compare policies at equal KL, not here."
    return text
