"""docs/choosing.md prints what is computed, and its figures can be drawn."""

import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infalign import BestOfN
from infalign.quantile.finite import rollouts_enough

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "choosing.md").read_text(encoding="utf-8")
SLOW = ("mismatch", "rollouts", "judge")
"""A minute together; `python docs/choosing.py` has them all."""


@functools.cache
def choosing():
    """docs/choosing.py, as a module."""
    spec = importlib.util.spec_from_file_location("choosing", DOCS / "choosing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(name: str, row: str) -> list[str]:
    """A row of a table of the page, without its first cell."""
    (table,) = re.findall(rf"<!-- table {name}:.*?-->(.*?)<!-- /{name} -->", PAGE, re.S)
    (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", table, re.M)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("name", [name for name in choosing().TABLES if name not in SLOW])
def test_tables_are_current(name):
    assert choosing().with_table(PAGE, name) == PAGE, "run `python docs/choosing.py --write`"


def test_slow_tables_are_current_where_they_are_looked_at():
    assert cells("rollouts", "best-of-4")[1] == str(
        rollouts_enough("optimal", BestOfN(4), 0.25, 0.01)
    )
    assert cells("judge", "0.6")[2] == " → ".join(choosing().judged(BestOfN(4), 0.25, 0.6))
    rates = [
        choosing().at(choosing().optimal_transform(BestOfN(4), kl=1.0), BestOfN(n), 1.0)
        for n in (1, 16)
    ]
    assert [cells("mismatch", "best-of-4")[i] for i in (0, 2)] == [f"{rate:.3f}" for rate in rates]


def test_a_wrong_number_is_noticed():
    wrong = PAGE.replace("0.928 (t = 7)", "0.929 (t = 7)")
    assert wrong != PAGE
    assert choosing().with_table(wrong, "transform") == PAGE


def test_figures_can_be_drawn():
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(DOCS / "figures.py"), "--smoke"]
    drawn = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=True)
    for path in drawn.stdout.split():
        assert (DOCS.parent / path).exists()
        assert path.removeprefix("docs/") in PAGE
