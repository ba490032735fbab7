"""The annotated tree of README and docs/architecture.md, from the first lines of docstrings.

`python docs/tree.py --write` puts it between the markers of both pages; without `--write` it says
whether they are current (exit code 1 where not). Nothing is imported, so it runs anywhere.
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "infalign"
START, END = "<!-- tree: python docs/tree.py --write -->", "<!-- /tree -->"

# Stage order, not the alphabet, tells the story; what is not named here comes after, by name.
ORDER = (
    *("protocols", "prompts", "rollouts", "rewards", "quantile", "policies", "training"),
    *("decoding", "evaluation", "report", "pipeline", "config", "cli", "assets"),
    *("calibration", "transforms", "tilting", "procedures", "win_rate", "optimal", "plan"),
)
STAGES = {
    "prompts": 1,
    "rollouts": 2,
    "rewards": 3,
    "quantile/calibration": 4,
    "quantile/transforms": 5,
    "training": 6,
    "decoding": 7,
    "evaluation": 8,
    "report": 9,
}
OPEN = ("quantile",)
"""Rooms that README shows the inside of; docs/architecture.md shows all."""
AROUND = (
    ("examples/", "scripts under 60 lines, run in the tests"),
    ("benchmarks/", "one folder per claim: what was measured, and one table of it all"),
    ("tests/", "mirrors src/: laws of each family, enumeration as oracle"),
    ("docs/", "theory, results, architecture, papers, decisions, the log of experiments"),
)


def first_line(path: Path) -> str:
    """First line of a module's docstring, without the full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{path} has no docstring; its first line stands in the tree. Write one.")
    return docstring.splitlines()[0].rstrip(".")


def rows(folder: Path, everything: bool, depth: int = 1) -> list[tuple[str, str]]:
    """(indented name, annotation) of the modules and packages in a folder."""
    found = []
    modules = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    for path in sorted([*modules, *packages], key=_place):
        key = path.relative_to(SOURCE).with_suffix("").as_posix()
        stage = f"{STAGES[key]} · " if key in STAGES else ""
        indent, is_room = "    " * depth, path.is_dir()
        docstring = first_line(path / "__init__.py" if is_room else path)
        found.append((f"{indent}{path.name}{'/' if is_room else ''}", stage + docstring))
        if is_room and (everything or key in OPEN):
            found += rows(path, everything, depth + 1)
    return found


def _place(path: Path) -> tuple[int, str]:
    return (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem)


def tree(everything: bool) -> str:
    """The whole tree as a fenced block; numbers are stages."""
    listed = [("src/infalign/", first_line(SOURCE / "__init__.py")), *rows(SOURCE, everything)]
    listed += AROUND
    width = max(len(name) for name, _ in listed) + 2
    return "\n".join(["```text", *(f"{name:{width}}{what}" for name, what in listed), "```"])


def pages() -> dict[Path, str]:
    """Each page that holds a tree → the page as it should be."""
    current = {}
    for name, everything in (("README.md", False), ("docs/architecture.md", True)):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if text.count(START) != 1 or text.count(END) != 1:
            raise ValueError(f"{path} needs the markers {START!r} and {END!r}, once each.")
        before, rest = text.split(START)
        current[path] = f"{before}{START}\n{tree(everything)}\n{END}{rest.split(END)[1]}"
    return current


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the trees into the pages")
    write = parser.parse_args().write
    stale = [p for p, text in pages().items() if p.read_text(encoding="utf-8") != text]
    for path in stale:
        if write:
            path.write_text(pages()[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'written' if write else 'out of date; use --write'}")
    return 1 if stale and not write else 0


if __name__ == "__main__":
    sys.exit(main())
