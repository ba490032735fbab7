"""Runs the claims one after another, then writes the figures and the table of README.md.

python -m benchmarks.bench [CLAIM ...] [--smoke] [--fresh] [--table]

Each claim is a program of its own, so that one cannot disturb another, and each keeps what it has
measured under `runs/bench` as it goes: what is interrupted goes on by the same command, and a claim
that finished with the code as it is now is passed over. What is kept is named by the benchmark's
own code and settings, not by the library's: `--fresh` puts it aside and measures everything anew.
"""

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from benchmarks.arena.program import program
from benchmarks.arena.runs import FOLDER
from benchmarks.arena.sources import code_of
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
    if options.fresh:
        put_aside()
    measure = smoke if options.smoke else measure_all
    failed = measure(chosen)
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}; the same command goes on there")
    return 1 if failed else 0


def smoke(claims: Sequence[Claim]) -> list[str]:
    """Runs claims in small, side by side, in a folder of their own; returns those that failed."""

    def one(claim: Claim) -> bool:
        began = time.monotonic()
        fine = run(claim, small=True, kept=kept)
        console.print(f"{claim.folder}: {'fine' if fine else 'failed'}, {_since(began)}")
        return fine

    workers = min(os.cpu_count() or 1, 4)
    with tempfile.TemporaryDirectory() as kept, ThreadPoolExecutor(workers) as pool:
        fine = list(pool.map(one, claims))
    return [claim.folder for claim, is_fine in zip(claims, fine, strict=True) if not is_fine]


def measure_all(claims: Sequence[Claim]) -> list[str]:
    """Measures claims one after another, so that timings are their own; returns those that failed.

    Figures and table are written after each.
    """
    failed = []
    for number, claim in enumerate(claims, 1):
        console.rule(f"[bold]{number}/{len(claims)} {claim.folder}")
        began = time.monotonic()
        if is_finished(claim):
            console.print("finished before, by the same code; --fresh measures it anew")
        elif run(claim):
            console.print(f"{claim.folder}: {_since(began)}")
            finish(claim)
            write_table()
        else:
            failed.append(claim.folder)
    return failed


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=(__doc__ or "").split("\n")[0]
    )
    names = [claim.folder for claim in CLAIMS]
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(names)}")
    parser.add_argument("--smoke", action="store_true", help="each in small; writes no result")
    parser.add_argument("--fresh", action="store_true", help="first put aside all that is kept")
    parser.add_argument("--table", action="store_true", help="only figures and table")
    options = parser.parse_args(argv)
    for name in options.claims:
        if name not in names:
            parser.error(f"no claim is named {name!r}; there are {', '.join(names)}.")
    return options


def run(claim: Claim, *, small: bool = False, kept: str | None = None) -> bool:
    """Runs a claim's programs; True where all of them succeed."""
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    environment |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    environment |= {"INFALIGN_BENCH": kept} if kept else {}
    for wanted in claim.programs + (() if small else claim.slow):
        command = [sys.executable, *wanted, *(["--smoke"] if small else [])]
        quiet = {"capture_output": True, "text": True} if small else {}
        done = subprocess.run(command, cwd=ROOT, env=environment, **quiet)
        if done.returncode:
            console.print(f"[red]{' '.join(wanted)} ended with code {done.returncode}")
            if small:
                console.print(done.stderr[-2000:], markup=False)
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
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}); restore it, or measure it anew.") from error


def shown_of(claim: Claim) -> ModuleType:
    """How the claim shows its result."""
    return importlib.import_module(f"benchmarks.{claim.folder}.shown")


def write_table() -> None:
    """Puts the table into README.md, and every figure beside its result."""
    for claim in CLAIMS:
        draw(claim)
    path = HERE / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join([BEGIN, *lines(), END])
    write_atomically(path, (before + table + after).encode(), HERE)


def lines() -> list[str]:
    """The table, a line each."""
    found = [
        "| claim | measured | what a user would otherwise pick | seen | commit |",
        "|---|---|---|---|---|",
    ]
    seen = {True: "yes", False: "**no**", None: "–"}
    for claim in CLAIMS:
        commit, link = commit_of(claim), f"[{claim.folder}]({claim.folder}/)"
        for row in rows_of(claim):
            cells = (f"{link}: {row.claim}", row.number, row.instead, seen[row.holds], commit)
            found.append("| " + " | ".join(cells) + " |")
    return found


def commit_of(claim: Claim) -> str:
    """The commit at which the result was measured, or at which it was last changed."""
    result = result_of(claim) or {}
    known = result.get("about", {}).get("commit")
    if known:
        return str(known)
    path = HERE / claim.folder / claim.result
    asked = ["git", "log", "-1", "--format=%h", "--", str(path)]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "–"


def code(claim: Claim) -> str:
    """Hash of the claim's programs and of the library."""
    digest = hashlib.sha256(code_of(*map(_module, claim.programs + claim.slow)).encode())
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _module(program: tuple[str, ...]) -> str:
    """`-m benchmarks.x.run`, or `benchmarks/x/run.py`."""
    return program[-1].removesuffix(".py").replace("/", ".")


def is_finished(claim: Claim) -> bool:
    """Whether it was measured by the code as it is."""
    return _finished().get(claim.folder) == code(claim)


def finish(claim: Claim) -> None:
    """Remembers that it was, unless something was left out for want of data."""
    if (result_of(claim) or {}).get("absent"):
        return
    text = json.dumps(_finished() | {claim.folder: code(claim)}, indent=1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_atomically(FOLDER / "finished.json", text.encode(), FOLDER)


def put_aside() -> None:
    """Renames the folder of what is kept; nothing is deleted."""
    if FOLDER.exists():
        aside = FOLDER.with_name(f"{FOLDER.name}-until-{time.strftime('%Y%m%d-%H%M%S')}")
        FOLDER.rename(aside)
        console.print(f"kept results are in {aside} now")


def _finished() -> dict[str, str]:
    path = FOLDER / "finished.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError:
        return {}


if __name__ == "__main__":
    program(lambda: sys.exit(main()))
