"""README and docs keep their word: code runs, outputs match, trees are current, links lead on."""

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.main import get_command

from infalign import BestOfN, plan
from infalign.cli.app import app
from infalign.config import validate_experiment
from infalign.policies import TabularPolicy
from infalign.prompts import Prompt
from infalign.rewards import FunctionReward
from infalign.rollouts import RolloutStore, collect, score

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)


def block(language: str, containing: str) -> str:
    """The README's one block in that language with that text in it."""
    (found,) = [code for name, code in BLOCKS if name == language and containing in code]
    return found


def run(code: str) -> tuple[str, dict]:
    """What the code prints, and its names."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    return printed.getvalue(), names


def test_every_python_block_of_the_readme_is_run_here():
    assert len([1 for name, _ in BLOCKS if name == "python"]) == 2


def test_the_example_prints_what_the_readme_says():
    printed, _ = run(block("python", "EmpiricalCalibration"))
    assert printed == block("text", "train with beta")


def test_the_store_reads_with_pandas_and_duckdb_as_the_readme_says(tmp_path, monkeypatch):
    pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    texts = ("Why?", "How?")
    policy = TabularPolicy(texts, (("a", "bb", "ccc"),) * 2, np.full((2, 3), 1 / 3))
    prompts = [Prompt.from_text(text) for text in texts]
    store = RolloutStore.open("runs/demo/act-two/rollouts", policy, seed=0)
    collect(policy, prompts, 8, store)
    length = FunctionReward(lambda x, ys: [[len(y) for y in row] for row in ys], "length")
    score(store, length, prompts)

    _, names = run(block("python", "duckdb"))

    assert len(names["rollouts"]) == 16
    assert sorted(names["best"]["prompt"]) == ["How?", "Why?"]
    longest = store.rewards("length", prompts).max()
    assert set(names["best"]["reward"]) == {longest} == {len(t) for t in names["best"]["text"]}
    assert RolloutStore.existing("runs/demo/act-two/rollouts").read().column_names[-1] == "length"


def test_the_store_that_the_readme_reads_is_the_one_that_the_demo_leaves():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (output,) = re.findall(r"^OUTPUT \?= (\S+)$", makefile, re.M)
    code = block("python", "duckdb")
    paths = set(re.findall(r"""["'](runs/.+?/rollouts)/""", code))
    assert paths == {f"{output}/act-two/rollouts"}
    assert f"leaves in `{output}`" in README


def test_the_experiment_of_the_readme_is_valid():
    experiment = validate_experiment(yaml.safe_load(block("yaml", "transform: optimal")))
    assert experiment.reward.kind == "callable"


def test_the_price_of_another_n_is_what_the_planner_says():
    rows = {row.transform: f"{row.standard_win_rate:.3f}" for row in plan(BestOfN(4), kl=1.0)}
    price = f"predicted to win {rows['optimal']} with a single answer, where calibration alone"
    assert f"{price} would have {rows['identity']}" in " ".join(README.split())


def test_make_knows_the_commands_of_the_readme():
    targets = re.findall(r"^make (\w+)", block("bash", "make demo"), re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


COMMANDS = sorted(
    {
        command.strip("`# \n")
        for page in [*PAGES, *ROOT.glob("examples/*.yaml")]
        for command in re.findall(
            r"^(?:# *)?infalign [a-z][^#\n]*|`infalign [a-z][^`]*`", page.read_text("utf-8"), re.M
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_knows_the_commands_of_the_docs(command):
    verb, words = get_command(app), shlex.split(re.sub(r"\s[<>]\s*\S+", "", command))[1:]
    context = verb.make_context("infalign", words[:1], resilient_parsing=True)
    while words and hasattr(verb, "commands"):
        name, *words = words
        assert name in verb.commands, f"{name} is none of {list(verb.commands)}"
        verb = verb.commands[name]
    if "--" in command:  # raises on an option the verb does not have
        verb.make_context(command, words, parent=context)


def test_the_table_of_verbs_is_complete():
    listed = re.findall(r"^\| `infalign (\w+)` \|", README, re.M)
    assert sorted(listed) == sorted(get_command(app).commands)


def test_trees_are_current():
    spec = importlib.util.spec_from_file_location("tree", ROOT / "docs" / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    tree = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tree)
    stale = [page.name for page, text in tree.pages().items() if page.read_text("utf-8") != text]
    assert not stale, f"{stale}: run `python docs/tree.py --write`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page):
    text = re.sub(
        r"<!--.*?-->|^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and not re.match(r"\w+:", link)]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing
