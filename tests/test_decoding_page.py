"""docs/decoding.md keeps its word: its code runs, its table says what procedures say."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from infalign.decoding import text_procedure_from_name
from infalign.decoding.names import TEXT_PROCEDURE_NAMES, text_procedure_settings

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "decoding.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\| `\w+` \|.*\|$", PAGE.partition("## Policies")[0], re.M)
]
NEEDED = {
    "order_statistic": {"probabilities": (0.5, 0.5)},
    "random_count": {"probabilities": (0.5, 0.5)},
    "rewind_and_repeat": {"threshold": 0.5, "at_most": 2},
    "blockwise_best_of_n": {"n": 2, "block": 2},
    "soft_best_of_n": {"n": 2, "temperature": 0.1},
    "weighted_vote": {"n": 2, "beta": 1.0},
    "minimum_bayes_risk": {"n": 2, "utility": "exact_match"},
    "metropolis_hastings": {"steps": 2},
    **{name: {"mean": 2} for name in ("best_of_poisson", "best_of_geometric")},
    **{name: {} for name in ("identity", "mcmc", "qalign", "block_search", "tree_search")},
}


def test_every_procedure_has_its_row():
    assert [row[0].strip("`") for row in ROWS] == list(TEXT_PROCEDURE_NAMES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_a_row_is_what_the_procedure_says_of_itself(row):
    name, _, settings, *needs = row
    name = name.strip("`")
    procedure = text_procedure_from_name(name, **NEEDED.get(name, {"n": 2}))
    says = (procedure.needs_reward, procedure.needs_calibration, procedure.needs_beginnings)
    assert [need == "yes" for need in needs] == list(says)
    assert not any(says[1:]) or says[0]
    named = [setting.strip() for setting in settings.split(",") if setting.strip()]
    assert set(named) <= set(text_procedure_settings(name))


def test_the_example_prints_what_the_page_says():
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    (said,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "decoding.md", "exec"), {})
    assert printed.getvalue() == said
