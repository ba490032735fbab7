"""Worlds that can be made here, and why others cannot: data or a model may be missing."""

import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from benchmarks.arena.world import World

__all__ = ["made_worlds"]


class _Case(Protocol):
    @property
    def world(self) -> Callable[[], World]: ...


def made_worlds(cases: Mapping[str, _Case]) -> tuple[dict[str, World], dict[str, str]]:
    """The worlds of some cases by name, and of those that cannot be made the reason.

    Args:
        cases: name → anything whose `world()` makes one.
    """
    worlds, absent = {}, {}
    for name, case in cases.items():
        try:
            worlds[name] = case.world()
        except (FileNotFoundError, ModuleNotFoundError) as why:
            absent[name] = str(why).split("\n")[0]
            print(f"{name} is skipped: {absent[name]}", file=sys.stderr)
    return worlds, absent
