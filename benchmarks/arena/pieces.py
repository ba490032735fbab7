"""Pieces of a claim that take minutes: each made once and kept as JSON under `runs/bench`."""

import functools
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.arena.results import commit, save
from benchmarks.arena.runs import FOLDER
from benchmarks.arena.sources import code_of

__all__ = ["piece"]


def piece(
    claim: str,
    name: str,
    settings: Any,
    make: Callable[[], Any],
    folder: Path | None = None,
    *,
    code: str | None = None,
) -> Any:
    """What `make` returns, or returned when the same code was last asked with these settings.

    Args:
        claim: Folder under `runs/bench`.
        name: Of the piece, for its file and the progress on stderr.
        settings: Everything it depends on; their `repr` is in the key.
        make: Makes it; JSON.
        folder: Kept there instead of `runs/bench`.
        code: What made it, also in the key; None: the module of `make` and what it imports.
    """
    code = code or code_of(_module_of(make))
    key = hashlib.sha256(f"{settings!r} {code}".encode()).hexdigest()[:10]
    path = (folder or FOLDER) / claim / f"{name}-{key}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # another program may be at it
            if not path.exists():
                print(f"{claim}: {name} …", file=sys.stderr, flush=True)
                save(path, {"made": make(), "commit": commit()})
    return json.loads(path.read_text())["made"]


def _module_of(make: Callable[[], Any]) -> str:
    """Where it is defined; `python -m` calls that module `__main__`."""
    while isinstance(make, functools.partial):
        make = make.func
    module = sys.modules[make.__module__]
    spec = module.__spec__
    return module.__name__ if spec is None else spec.name
