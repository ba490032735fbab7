"""Runs the claims one after another, then writes the figures and the table of README.md.

python -m benchmarks.bench [CLAIM ...] [--smoke] [--again] [--table]

Each claim is a program of its own, so that one cannot disturb another, and each keeps what it has
measured as it goes: what is interrupted goes on by the same command. A claim that finished with the
sources as they are now is passed over; `--again` measures it anew.
"""

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from benchmarks.arena.runs import FOLDER
from benchmarks.reading import CLAIMS, Claim, Row
from infalign.rollouts.shards import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parent
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
BEGIN, END = "<!-- table: python -m benchmarks.bench --table -->", "<!-- end of table -->"

console = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where a claim failed; 2 for a mistake in the command."""
    options = _options(argv)
    chosen = [claim for claim in CLAIMS if claim.folder in (options.claims or claim.folder)]
    if options.table:
        write_table()
        return 0
    failed = []
    for number, claim in enumerate(chosen, 1):
        console.rule(f"[bold]{number}/{len(chosen)} {claim.folder}")
        began = time.monotonic()
        if not options.smoke and not options.again and is_finished(claim):
            console.print("finished before, with the same sources; --again measures it anew")
            continue
        if not run(claim, smoke=options.smoke):
            failed.append(claim.folder)
            continue
        console.print(f"{claim.folder}: {time.monotonic() - began:.0f} s")
        if not options.smoke:
            finish(claim)
            draw(claim)
            write_table()
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}; the same command goes on there")
    return 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=(__doc__ or "").split("\n")[0]
    )
    names = [claim.folder for claim in CLAIMS]
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(names)}")
    parser.add_argument("--smoke", action="store_true", help="seconds each; writes nothing")
    parser.add_argument("--again", action="store_true", help="also what is finished")
    parser.add_argument("--table", action="store_true", help="only figures and table")
    options = parser.parse_args(argv)
    for name in options.claims:
        if name not in names:
            parser.error(f"no claim is named {name!r}; there are {', '.join(names)}.")
    return options


def run(claim: Claim, *, smoke: bool) -> bool:
    """Runs a claim's programs; True where all of them succeed."""
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    environment |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    for program in claim.programs + (() if smoke else claim.slow):
        command = [sys.executable, *program, *(["--smoke"] if smoke else [])]
        output = subprocess.DEVNULL if smoke else None
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output)
        if done.returncode:
            console.print(f"[red]{' '.join(program)} ended with code {done.returncode}")
            return False
    return True


def draw(claim: Claim) -> None:
    """Writes the figures of a claim from its result."""
    result = result_of(claim)
    if result is not None and hasattr(shown := shown_of(claim), "draw"):
        shown.draw(result, HERE / claim.folder)


def rows_of(claim: Claim) -> list[Row]:
    """The claim's lines of the table; none where it was not measured yet."""
    result = result_of(claim)
    return [] if result is None else shown_of(claim).rows(result)


def result_of(claim: Claim) -> dict[str, Any] | None:
    """What was measured."""
    path = HERE / claim.folder / claim.result
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def shown_of(claim: Claim) -> ModuleType:
    """How the claim shows its result."""
    return importlib.import_module(f"benchmarks.{claim.folder}.shown")


def write_table() -> None:
    """Puts the table into README.md, and every figure beside its result."""
    lines = [
        "| claim | measured | what a user would otherwise pick | seen | commit |",
        "|---|---|---|---|---|",
    ]
    seen = {True: "yes", False: "**no**", None: "–"}
    for claim in CLAIMS:
        draw(claim)
        link = f"[{claim.folder}]({claim.folder}/)"
        for row in rows_of(claim):
            commit = commit_of(claim)
            cells = (f"{link}: {row.claim}", row.number, row.instead, seen[row.holds], commit)
            lines.append("| " + " | ".join(cells) + " |")
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join([BEGIN, *lines, END])
    write_atomically(path, (before + table + after).encode(), HERE)


def commit_of(claim: Claim) -> str:
    """The commit at which the result was measured, or at which it was last changed."""
    result = result_of(claim) or {}
    known = result.get("about", {}).get("commit")
    if known:
        return str(known)
    path = HERE / claim.folder / claim.result
    asked = ["git", "log", "-1", "--format=%h", "--", str(path)]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "–"


def sources() -> str:
    """Hash of everything a measurement may depend on."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.rglob("*.py"), *(ROOT / "src").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def is_finished(claim: Claim) -> bool:
    """Whether it was measured with the sources as they are."""
    return _finished().get(claim.folder) == sources()


def finish(claim: Claim) -> None:
    """Remembers that it was."""
    text = json.dumps(_finished() | {claim.folder: sources()}, indent=1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_atomically(FOLDER / "finished.json", text.encode(), FOLDER)


def _finished() -> dict[str, str]:
    path = FOLDER / "finished.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
