"""What the claims that compare methods are asked on the command line, and how they tell."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.arena.world import World

__all__ = ["made_worlds", "parsed", "target", "told"]


def parsed(
    claim: str,
    doc: str | None,
    argv: Sequence[str] | None,
    worlds: Iterable[str] = (),
    *,
    lists: bool = False,
) -> argparse.Namespace:
    """The options of a claim's program.

    Args:
        claim: Its folder.
        doc: Its docstring; the first line is shown.
        argv: Arguments; None: the process's.
        worlds: Names that `--worlds` takes; without any there is no such option.
        lists: Whether there is `--list-runs`.
    """
    shown = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{claim}.run", description=(doc or "").split("\n")[0]
    )
    shown.set_defaults(worlds=None, list_runs=False)
    shown.add_argument("--smoke", action="store_true", help="seconds, a made world")
    shown.add_argument("--only-kept", action="store_true", help="read runs that are there")
    if lists:
        shown.add_argument("--list-runs", action="store_true", help="name the runs that it takes")
    if names := list(worlds):
        given = {"nargs": "+", "choices": names, "metavar": "WORLD"}
        shown.add_argument("--worlds", **given, help=f"of {', '.join(names)}; writes no result")
    shown.add_argument("--output", metavar="FILE", help="instead of result.json beside this file")
    return shown.parse_args(argv)


def target(options: argparse.Namespace, folder: Path) -> Path | None:
    """Where the result goes: nowhere for a part of it, unless it is asked for."""
    if options.output:
        return Path(options.output)
    return None if options.smoke or options.worlds else folder / "result.json"


def made_worlds(
    makers: Mapping[str, Callable[[], World]],
) -> tuple[dict[str, World], dict[str, str]]:
    """The worlds that can be made here, and of the others why not: data or a model is missing."""
    worlds, absent = {}, {}
    for name, make in makers.items():
        try:
            worlds[name] = make()
        except (FileNotFoundError, ModuleNotFoundError) as why:
            absent[name] = str(why).split("\n")[0]
            print(f"{name} is skipped: {absent[name]}", file=sys.stderr)
    return worlds, absent


def told(world: str) -> Callable[[int, int, str], None]:
    """Progress on stderr."""

    def tell(done: int, all_of_them: int, label: str) -> None:
        print(f"{world}: {done}/{all_of_them} {label}", file=sys.stderr, flush=True)

    return tell
