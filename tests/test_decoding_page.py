"""docs/decoding.md keeps its word: its code runs, its table says what procedures say."""

import contextlib
import dataclasses
import io
import re
import typing
from pathlib import Path

import pytest
import yaml

from infalign import config
from infalign.config import members, text_procedures, validate_experiment
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
NEEDS = {"mcmc": {"beta": 0.1}}
"""What has no default in an experiment file."""


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


SECTION = PAGE.partition("## Training for a procedure on text")[2].partition("\n## ")[0]


def experiment_of_the_page(**changes):
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", SECTION, re.M | re.S)
    return validate_experiment(yaml.safe_load(text) | changes)


def test_the_experiment_of_the_page_is_valid_and_begins_with_its_defaults():
    experiment = experiment_of_the_page()
    assert experiment.procedure == config.MajorityVote()
    assert experiment.training.samples_per_prompt > experiment.procedure.n


def test_the_page_names_all_procedures_on_text_that_an_experiment_takes():
    known = {
        section.kind: section
        for section in typing.get_args(typing.get_args(members.Procedure)[0])
        if issubclass(section, text_procedures.TextProcedure)
    }
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", SECTION, re.M)
    assert {kind for kind, _, _ in rows} == set(known)
    for kind, settings, draws in rows:
        fields = {field.name: field for field in dataclasses.fields(known[kind])}
        bare = re.sub(r"\(.*?\)", "", settings)
        said = dict(setting.strip().partition(":")[::2] for setting in bare.split(","))
        said = {name.strip(): value.strip() for name, value in said.items()}
        assert set(said) == set(fields) - {"kind"}
        assert all(value == str(fields[name].default) for name, value in said.items() if value)
        experiment = experiment_of_the_page(procedure={"kind": kind} | NEEDS.get(kind, {}))
        decoded = text_procedure_from_name(kind, **NEEDED.get(kind, {"n": 2}))
        assert decoded.needs_beginnings == (draws == "from beginnings")
        assert (experiment.procedure.candidates > 1) == (draws == "whole responses")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"kind": "online_decoded", "kl": 1.0}}, "in win rate per nat"),
        (
            {"training": {"kind": "online_decoded", "beta": 0.1, "samples_per_prompt": 4}},
            "samples_per_prompt is 4, but procedure samples 4",
        ),
        ({"evaluate": {"samples": 3, "ns": [1]}}, "evaluate.samples is 3"),
        ({"transform": "log"}, "leave it out"),
        ({"training": {"kind": "online", "kl": 1.0}}, "online_decoded, beta: 0.1"),
    ],
)
def test_what_the_page_says_is_refused_is(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        experiment_of_the_page(**changes)


def test_the_example_prints_what_the_page_says():
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    (said,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "decoding.md", "exec"), {})
    assert printed.getvalue() == said
