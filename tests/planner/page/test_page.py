"""The page says what Python says, wherever its sliders stand, and everyone can use it."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infalign.planner import mismatch
from infalign.planner.page import START, page_html, write_page
from infalign.quantile.procedures import BestOfN

_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
assert _spec is not None
assert _spec.loader is not None
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

AGREE = 1e-4
"""Ten times closer than a person is promised."""
PLACES = (
    "#procedure=identity&kl=2&transform=exponential&t=-6",
    "#procedure=best_of_n&n=64&kl=4&transform=optimal",
    "#procedure=best_of_n&n=5&kl=0.9&transform=optimal&agreement=0.7&k=32",
    "#procedure=worst_of_n&n=48&kl=2.5&transform=optimal&k=256",
    "#procedure=worst_of_n&n=3&kl=0.5&transform=gold&agreement=0.85",
    "#procedure=median_of_n&n=6&kl=0.4&transform=optimal&k=16",
    "#procedure=best_of_poisson&n=4&kl=0.3&transform=log&k=48",
    "#procedure=soft_best_of_n&n=3&temperature=0.2&kl=0.5&transform=optimal",
    "#procedure=rewind_and_repeat&threshold=0.6&at_most=5&kl=0.6&transform=optimal",
    "#procedure=metropolis_hastings&steps=2&n=4&kl=0.1&transform=optimal",
)


def numbers_on(page) -> dict[str, float]:
    """The numbers the page shows, once they are those of what its controls say."""
    page.wait_for_selector('html[data-numbers^="#"]')
    pairs = page.locator("#numbers dd").evaluate_all(
        "all => all.map((dd) => [dd.dataset.name, dd.dataset.value])"
    )
    return {name: float(value) for name, value in pairs}


def assert_same(page) -> None:
    """Page and Python agree on every number of the state that the page is in."""
    seen = numbers_on(page)
    state = oracle.state_of(page.locator("html").get_attribute("data-numbers"))
    expected = oracle.numbers(state)
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        assert seen[name] == pytest.approx(value, abs=AGREE, rel=AGREE), (name, state)


@pytest.mark.parametrize("place", PLACES)
def test_numbers_equal_pythons(open_page, place):
    assert_same(open_page(place))


def test_every_slider_moves_by_keyboard_and_numbers_follow(open_page):
    """Where each slider ends by a few keys, drawn with a fixed seed; Python is asked each time."""
    page, rng = open_page("#transform=exponential&k=16"), np.random.default_rng(11)
    for name in ("n", "kl", "t", "k", "agreement"):
        moved_by_keys(page, name, int(rng.integers(2, 9)), back=name == "agreement")
        assert_same(page)
    page.select_option("#procedure", "rewind_and_repeat")
    moved_by_keys(page, "threshold", 3)
    moved_by_keys(page, "at_most", 2, back=True)
    page.select_option("#procedure", "soft_best_of_n")
    moved_by_keys(page, "temperature", 3)
    page.select_option("#procedure", "metropolis_hastings")
    moved_by_keys(page, "steps", 2, back=True)
    assert "metropolis_hastings(2, n=" in page.locator("#command").input_value()


def moved_by_keys(page, name: str, steps: int, *, back: bool = False) -> None:
    """Move a slider by the arrow keys; its value and what a screen reader says must follow."""
    slider = page.locator(f"#{name}")
    slider.focus()
    before = [slider.get_attribute(a) for a in ("data-value", "aria-valuetext")]
    for _ in range(steps):
        page.keyboard.press("ArrowLeft" if back else "ArrowRight")
    after = [slider.get_attribute(a) for a in ("data-value", "aria-valuetext")]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_wrong_number_would_be_noticed(open_page):
    """Negative control: the comparison refuses a page that is in another state than it says."""
    page = open_page()
    numbers_on(page)
    page.locator("#numbers dd").first.evaluate("dd => { dd.dataset.value = 0.9413; }")
    with pytest.raises(AssertionError, match="decoded"):
        assert_same(page)


@pytest.mark.parametrize(
    ("place", "procedures", "agreement"),
    [
        ("#n=3&kl=0.7", [BestOfN(n) for n in (1, 2, 3, 4, 8, 16, 32)], 1.0),
        ("#n=4&kl=1&agreement=0.6", [BestOfN(n) for n in (1, 2, 4)], 0.6),
    ],
)
def test_the_matrix_equals_pythons(open_page, place, procedures, agreement):
    page = open_page(place)
    page.wait_for_selector('html[data-settled^="#"]')
    rows = page.locator("#mismatch tbody tr").evaluate_all(
        "all => all.map((tr) => [...tr.querySelectorAll('td')].map((td) => td.dataset.value))"
    )
    kl = oracle.state_of(page.locator("html").get_attribute("data-settled"))["kl"]
    expected = mismatch(procedures, kl, agreement=agreement).win_rates
    seen = np.array(rows, dtype=float)
    assert seen[: len(expected), : len(expected)] == pytest.approx(expected, abs=AGREE)
    assert page.locator("#mismatch caption").inner_text()
    heads = page.locator("#mismatch th[scope=col]").count()
    assert heads == len(rows) + 1
    assert page.locator("#mismatch th[scope=row]").count() == len(rows)


def test_text_on_the_matrix_stands_out(open_page):
    """A contrast of at least 4.5, light and dark."""
    for scheme in ("light", "dark"):
        page = open_page("", color_scheme=scheme)
        page.wait_for_selector('html[data-settled^="#"]')
        pairs = page.locator("#mismatch td").evaluate_all(
            "all => all.map(getComputedStyle).map((s) => [s.color, s.backgroundColor])"
        )
        assert len(pairs) == 36
        assert min(contrast(*pair) for pair in pairs) >= 4.5


def contrast(*colours: str) -> float:
    """Of two CSS colours, by WCAG."""
    light = []
    for colour in colours:
        values = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system(open_page, scheme):
    page = open_page("", color_scheme=scheme)
    style = page.locator("body").evaluate(
        "b => [getComputedStyle(b).color, getComputedStyle(b).backgroundColor]"
    )
    assert contrast(*style) > 12
    assert (contrast(style[1], "rgb(0,0,0)") > 5) == (scheme == "light")


@pytest.mark.parametrize(
    "place", ["", "#procedure=soft_best_of_n&n=2&agreement=0.8&transform=exponential&k=64"]
)
def test_a_narrow_window_needs_no_sideways_scrolling(open_page, place):
    page = open_page(place, viewport={"width": 390, "height": 844})
    numbers_on(page)
    if not place:
        page.wait_for_selector('html[data-settled^="#"]')
    assert page.locator("html").evaluate("h => h.scrollWidth") == 390
    inside = page.locator(".scroll").evaluate("s => s.scrollWidth - s.clientWidth")
    assert inside <= 0


def test_the_hash_holds_the_plan(open_page):
    page = open_page()
    numbers_on(page)
    page.select_option("#procedure", "worst_of_n")
    page.locator("#n").fill("6")
    page.wait_for_selector('html[data-numbers*="procedure=worst_of_n&n=7"]')
    page.wait_for_timeout(200)
    again = open_page("#" + page.url.partition("#")[2])
    assert numbers_on(again) == numbers_on(page)
    assert again.locator("#procedure").input_value() == "worst_of_n"
    assert "--procedure worst_of_n --n 7 --kl 1" in again.locator("#command").input_value()


@pytest.mark.parametrize(
    "place",
    ["#procedure=identity&transform=exponential&t=-6", "#n=3&kl=0.5&transform=log&k=16"],
)
def test_the_command_runs_and_prints_the_same(open_page, place):
    page = open_page(place)
    seen = numbers_on(page)
    command = shlex.split(page.locator("#command").input_value())
    run = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"{seen.get('rollouts', seen['decoded']):.3f}" in run.stdout


def test_nonsense_in_the_hash_is_passed_over(open_page):
    page = open_page("#procedure=magic&n=0&kl=-1&agreement=7&k=1&transform=<b>&t=NaN&steps=1.5")
    assert numbers_on(page)["limit"] == pytest.approx(0.9411, abs=1e-4)


def test_what_cannot_be_is_explained(open_page):
    page = open_page("#kl=4&k=4")
    numbers_on(page)
    assert "out of reach with 4 calibration rollouts" in page.locator("#notice").inner_text()
    page = open_page("#agreement=0")
    numbers_on(page)
    assert "says nothing about the gold one" in page.locator("#notice").inner_text()
    assert "NaN" not in page.locator("body").inner_text()


def test_an_optimum_that_is_not_found_is_told(open_page):
    """Not after minutes: the page's own clock ends the search, or says that it still goes on."""
    page = open_page("#procedure=metropolis_hastings&n=64&steps=16&kl=4&transform=optimal")
    page.wait_for_selector("#notice:not([hidden])")
    assert "was not found" in page.locator("#notice").inner_text()
    assert "No number here" in page.locator("#sentence").inner_text()


def test_a_steep_reward_known_by_many_ranks_keeps_its_digits(open_page):
    """Against 0.99254, by means of Φ with 40 digits; 12 digits less near the top give 0.9915."""
    page = open_page("#kl=4&transform=exponential&t=-20&k=4096")
    assert numbers_on(page)["rollouts"] == pytest.approx(0.99254, abs=2e-5)


def test_everything_has_a_name_for_screen_readers(open_page):
    page = open_page("#procedure=rewind_and_repeat&transform=exponential&at_most=1")
    page.wait_for_selector('html[data-settled^="#"]')
    for control in page.locator("input, select, button").all():
        label = control.evaluate("c => (c.labels?.[0]?.textContent ?? c.textContent).trim()")
        assert label, control.get_attribute("id")
    figures = page.locator(".plot > svg")
    assert figures.count() == 3
    for figure in figures.all():
        assert figure.get_attribute("role") == "img"
        assert re.search(r"\d", figure.get_attribute("aria-label"))
    ids = page.locator("[id]").evaluate_all("all => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))
    page.wait_for_timeout(900)
    assert "%" in page.locator("[role=status]").inner_text()
    shown = page.locator(".field:visible input, .field:visible select")
    names = shown.evaluate_all("all => all.map((e) => e.id)")
    assert names == ["procedure", "threshold", "at_most", "kl", "transform", "t", "k", "agreement"]


def test_the_page_needs_nothing_else():
    text = page_html()
    assert len(text.encode()) < 300_000
    assert not re.search(r"https?://|@import|<link rel=.stylesheet|src=", text)


def test_what_a_caller_gets_wrong_is_told(tmp_path):
    with pytest.raises(ValueError, match="no control 'N'"):
        page_html(N=4)
    with pytest.raises(ValueError, match="procedure is 'magic'; the page has identity"):
        page_html(procedure="magic")
    with pytest.raises(ValueError, match="n is 1000; the page shows values from 1 to 128"):
        write_page(tmp_path / "plan.html", n=1000)
    with pytest.raises(ValueError, match="kl is nan"):
        page_html(kl=float("nan"))


def test_a_page_starts_where_it_is_told(open_page, tmp_path):
    path = write_page(tmp_path / "plan.html", **(START | {"procedure": "worst_of_n", "n": 8}))
    page = open_page(path=path)
    numbers_on(page)
    assert "procedure=worst_of_n&n=8" in page.locator("html").get_attribute("data-numbers")
