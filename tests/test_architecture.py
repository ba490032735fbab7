"""The staircase of imports, and what importing the package may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import infalign

SOURCE = Path(infalign.__file__).parent
STAIRCASE = {  # room: the rooms of ours it may import
    "quantile": set(),
    "protocols": set(),
    "prompts": set(),
    "assets": set(),
    "addresses": set(),
    "config": {"addresses", "prompts", "protocols", "quantile"},
    "policies": {"addresses", "assets", "prompts", "protocols", "quantile"},
    "rewards": {"assets", "policies", "prompts", "protocols"},
    "rollouts": {"prompts", "protocols"},
    "training": {"decoding", "policies", "prompts", "protocols", "quantile", "rollouts"},
    "decoding": {"policies", "prompts", "protocols", "quantile", "rollouts"},
    "evaluation": {"decoding", "prompts", "protocols", "quantile", "rollouts", "training"},
    "planner": {"quantile"},
    "report": {"evaluation", "planner", "quantile"},
    "serving": {"decoding", "policies", "prompts", "protocols", "quantile", "rewards"},
    "integrations": {
        *("policies", "prompts", "protocols", "quantile", "rewards", "rollouts", "training"),
    },
}
"""`pipeline` and `cli` introduce everyone to everyone; `__init__` shows the quantile core."""
FREE = {"pipeline", "cli", "__init__", "__main__"}


def rooms_imported(path: Path) -> set[str]:
    """First part of every `infalign.…` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "infalign":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("infalign.")} | {
        name for name in found if "." not in name and name in STAIRCASE
    }


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


FILES = [p for p in sorted(SOURCE.rglob("*.py")) if room_of(p) not in FREE]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_the_staircase(path):
    room = room_of(path)
    assert room in STAIRCASE, f"a new room, {room}: give it a step in the table"
    assert rooms_imported(path) - {room} <= STAIRCASE[room]


def test_the_staircase_has_no_loops():
    below = {room: set(steps) for room, steps in STAIRCASE.items()}
    while below:
        ground = {room for room, steps in below.items() if not steps & below.keys()}
        assert ground, f"these rooms lean on each other: {sorted(below)}"
        below = {room: steps for room, steps in below.items() if room not in ground}


def test_the_reader_of_imports_sees_them(tmp_path):
    """Negative control: every way to write an import is noticed."""
    file = tmp_path / "x.py"
    file.write_text(
        "from infalign import training\nimport infalign.report.page\n"
        "def f():\n    from infalign.policies.tabular import TabularPolicy\n"
    )
    assert rooms_imported(file) == {"training", "report", "policies"}


@pytest.mark.parametrize("module", ["infalign", "infalign.planner", "infalign.protocols"])
def test_importing_the_core_loads_no_heavy_library(module):
    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'matplotlib'}"
    code = f"import sys, {module}; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"import {module} loads {run.stderr}"


def test_every_public_name_is_there():
    """They are loaded by name only when asked for, so nothing else would notice a wrong one."""
    assert all(getattr(infalign, name) is not None for name in infalign.__all__)
    assert dir(infalign) == sorted(infalign.__all__)
    with pytest.raises(AttributeError, match="no attribute 'best_of_m'"):
        infalign.best_of_m  # noqa: B018


def test_git_ignores_no_source_file():
    root = SOURCE.parent.parent
    found = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "src"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if found.returncode != 0:
        pytest.skip("not a git checkout")
    made = ("__pycache__", ".egg-info", ".pyc")
    assert [p for p in found.stdout.splitlines() if not any(part in p for part in made)] == []
