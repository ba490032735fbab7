"""The page is one well-formed, self-contained, deterministic file that says what is there."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from infalign.planner.page import page_html
from infalign.report import (
    Act,
    Answer,
    AnswerPair,
    Curve,
    Frontier,
    Measured,
    Report,
    TrainingCurve,
    WinRateByN,
    main_figure_png,
    main_figure_svg,
    write_report,
)

_VOID = {"meta", "br", "hr", "img", "input", "link"}
_HOSTILE = (
    "</p></script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} {% raw %} "
    "$x^2$ & \"quotes\" 'single' \x00\x1b[31m \ud800 ]]> <!-- \u202eright to left\u202c\n\nnext"
)


class _Page(HTMLParser):
    """Tags with their attributes; refuses a closing tag that does not close the last open one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def whole(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(whole: str) -> str:
    """The report's own text, without the page in the planner's frame."""
    found, frames = re.subn(r'srcdoc="[^"]*"', 'srcdoc=""', whole)
    assert frames == 1
    return found


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


def test_the_page_is_well_formed(page: _Page):
    assert page.stack == []
    assert page.tags[0][0] == "html"
    assert len(page.all("h1")) == 1


def test_the_page_asks_the_network_for_nothing_and_runs_nothing(text: str, page: _Page):
    without_namespace = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"(?:https?:)?//\w", without_namespace)
    assert "@import" not in text
    for tag in ("script", "link", "img", "object", "embed", "base"):
        assert page.all(tag) == []
    (frame,) = page.all("iframe")
    assert frame["sandbox"] == "allow-scripts"  # scripts, but no way into the report
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_the_planner_is_there_whole_and_starts_at_the_experiment(example: Report, whole: str):
    (frame,) = _Page(whole).all("iframe")
    assert frame["srcdoc"] == page_html(**example.acts[0].plan)
    assert frame["title"]
    assert '"transform": "exponential"' in frame["srcdoc"]


def test_a_report_without_a_plan_has_no_planner(tmp_path: Path):
    page = write_report(Report("None", (Act("No plan"),)), tmp_path).read_text(encoding="utf-8")
    assert "iframe" not in page


def test_ids_are_unique_and_every_reference_finds_its_own(text: str, page: _Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in page.tags if a.get("href")}
    targets |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets
    assert targets <= set(ids)


def test_every_figure_has_alt_text_with_numbers_in_both_widths(page: _Page):
    figures = page.all("svg")
    # Four figures in each of two acts, wide and narrow.
    assert len(figures) == 16
    for attributes in figures:
        assert attributes["role"] == "img"
        label = attributes["aria-label"]
        assert label is not None
        assert len(re.findall(r"\d", label)) > 5
        assert "width" not in attributes
    assert len(page.all("desc")) == 16


def test_figures_follow_the_theme(text: str):
    figures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    left = {colour for figure in figures for colour in re.findall(r"#[0-9a-f]{6}\b", figure)}
    assert left == set()
    used = set(re.findall(r"var\(--(\w+)", "".join(figures)))
    assert {"ink", "muted", "grid", "card", "s1", "s2"} <= used
    assert "@media (prefers-color-scheme: dark)" in text
    assert not re.search(r"<style[^>]*>\s*\*\{", text.replace("* { box-sizing", ""))


def test_every_table_scrolls_in_its_own_box(text: str, page: _Page):
    boxes = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table")) > 20
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in boxes)
    assert text.count("<caption>") == len(boxes)


def test_the_same_record_gives_the_same_bytes(example: Report, folder: Path, tmp_path: Path):
    again = write_report(example, tmp_path)
    for name in ("report.html", "report.json"):
        assert again.with_name(name).read_bytes() == (folder / name).read_bytes()


def _empty_reports(example: Report) -> list[Report]:
    act = example.acts[0]
    optional = [f.name for f in dataclasses.fields(Act) if f.name != "title"]
    drawn = ("frontiers", "calibration", "training", "win_rate_by_n")
    without = dataclasses.replace(act, **{name: getattr(Act("default"), name) for name in drawn})
    alone = [Act("Only one part", **{name: getattr(act, name)}) for name in optional]
    return [Report("No acts", ()), Report("Parts", (without, *alone))]


def test_any_part_may_be_missing(example: Report, tmp_path: Path):
    for report in _empty_reports(example):
        written = write_report(report, tmp_path).read_text(encoding="utf-8")
        assert _Page(written).stack == []
        assert "None" not in re.sub(r"<style.*?</style>", "", written, flags=re.DOTALL)
    empty = write_report(Report("t", (Act("Nothing"),)), tmp_path).read_text(encoding="utf-8")
    assert "<h3" not in empty
    assert "<svg" not in empty


@pytest.fixture(scope="module")
def unpredicted(example: Report) -> Act:
    """An act whose procedure no theory knows: measured, and nothing stands above that."""
    act = example.acts[0]
    hidden = [
        dataclasses.replace(
            f,
            limit=None,
            predictions=(),
            measured=[dataclasses.replace(m, transform="decoded win rate") for m in f.measured],
        )
        for f in act.frontiers
    ]
    rows = act.decompositions[0].rows[2:]
    first, *others = act.training
    return dataclasses.replace(
        act,
        frontiers=hidden,
        ideal=(),
        plan={},
        decompositions=[dataclasses.replace(act.decompositions[0], rows=rows)],
        training=[dataclasses.replace(first, quantile=()), *others],
    )


WITHOUT_LIMIT = (
    "of the limit",
    "limit, %",
    "W*",
    "<dt>Limit",
    "ideal and trained",
    "-part-distance",
    "Curves are",
    "a transform of the quantile",
)


def test_where_no_theory_predicts_nothing_is_said_of_limit_or_ideal(
    unpredicted: Act, text: str, tmp_path: Path
):
    written = write_report(Report("t", (unpredicted,)), tmp_path).read_text(encoding="utf-8")
    assert [words for words in WITHOUT_LIMIT if words in written] == []
    assert [words for words in WITHOUT_LIMIT if words not in text] == []  # with one, all is said
    assert "Last checkpoint of each policy" in written
    assert "Points are measurements" in written
    assert _Page(written).stack == []


def test_a_limit_known_at_checkpoints_alone_keeps_its_columns(unpredicted: Act, tmp_path: Path):
    panel = unpredicted.frontiers[0]
    points = [dataclasses.replace(p, limit=0.9) for p in panel.measured[0].checkpoints]
    measured = dataclasses.replace(panel.measured[0], checkpoints=points)
    panels = (dataclasses.replace(panel, measured=[measured]), unpredicted.frontiers[1])
    act = dataclasses.replace(unpredicted, frontiers=panels)
    written = write_report(Report("t", (act,)), tmp_path).read_text(encoding="utf-8")
    assert "of the limit, %" in written
    assert "ideal and trained" in written


def test_a_policy_without_a_line_in_a_panel_is_named(unpredicted: Act, text: str, tmp_path: Path):
    written = write_report(Report("t", (unpredicted,)), tmp_path).read_text(encoding="utf-8")
    name = unpredicted.training[0].policy
    assert f"{name}, trained on decoded win rate, logged no quantile." in written
    assert "logged no" not in text


def test_empty_series_inside_a_part_do_not_stop_the_page(tmp_path: Path):
    act = Act(
        "Hollow",
        frontiers=(
            Frontier("train", limit=Curve("limit", (), ()), measured=(Measured("a", "b", ()),)),
            Frontier("held-out"),
        ),
        training=(TrainingCurve("a", (), kl=()), TrainingCurve("b", (1, 2))),
        win_rate_by_n=(WinRateByN("a", "train", (), ()),),
    )
    assert _Page(write_report(Report("t", (act,)), tmp_path).read_text()).stack == []


def test_hostile_text_is_shown_and_never_obeyed(example: Report, tmp_path: Path):
    def hostile(record):
        """The record with every string that a model or a user writes replaced."""
        if isinstance(record, tuple):
            return tuple(hostile(item) for item in record)
        if isinstance(record, dict):
            return {_HOSTILE + key: _HOSTILE for key in record}
        if isinstance(record, str):
            return record if record in ("train", "held-out") else _HOSTILE + record
        if not dataclasses.is_dataclass(record):
            return record
        fields = [f.name for f in dataclasses.fields(record)]
        return dataclasses.replace(record, **{n: hostile(getattr(record, n)) for n in fields})

    report = Report(_HOSTILE, (hostile(example.acts[0]),), summary=_HOSTILE, created=_HOSTILE)
    written = write_report(report, tmp_path).read_text(encoding="utf-8")
    page = _Page(written)
    assert page.stack == []
    assert page.all("script") == page.all("img") == []
    assert "&lt;script&gt;alert(1)" in written
    assert "49" not in re.findall(r"<h1>.*?</h1>", written, flags=re.DOTALL)[0]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", written)
    for figure in re.findall(r"<svg.*?</svg>", written, flags=re.DOTALL):
        ElementTree.fromstring(figure)


def test_answers_keep_their_line_breaks(tmp_path: Path):
    pair = AnswerPair("a\n b", (Answer("p", "first\n\nsecond"),))
    written = write_report(Report("t", (Act("a", answers=(pair,)),)), tmp_path).read_text()
    assert "first\n\nsecond" in written
    assert re.search(r"\.answer \.text \{ white-space: pre-wrap", written)


def test_the_main_figure_stands_alone(example: Report, tmp_path: Path):
    svg = main_figure_svg(example.acts[0], tmp_path / "main.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "InfAlign exp(10u) ends at KL 1.02 nats" in (root.get("aria-label") or "")
    assert "prefers-color-scheme: dark" in svg
    assert "--s1:" in svg
    first = main_figure_png(example.acts[0], tmp_path / "main.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert main_figure_png(example.acts[0], tmp_path / "again.png").read_bytes() == first


def test_a_main_figure_without_frontiers_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'Nothing' has no frontiers.*Act\.frontiers"):
        main_figure_svg(Act("Nothing"), tmp_path / "main.svg")
