"""Pieces of a claim that take minutes: each made once and kept as JSON under `runs/bench`."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.arena.results import save
from benchmarks.arena.runs import FOLDER

__all__ = ["piece"]


def piece(
    claim: str, name: str, settings: Any, make: Callable[[], Any], folder: Path | None = None
) -> Any:
    """What `make` returns, or returned when it was last asked with these settings.

    Args:
        claim: Folder under `runs/bench`.
        name: Of the piece, for its file and the progress on stderr.
        settings: Everything it depends on; their `repr` is the key.
        make: Makes it; JSON.
        folder: Kept there instead of `runs/bench`.
    """
    key = hashlib.sha256(repr(settings).encode()).hexdigest()[:10]
    path = (folder or FOLDER) / claim / f"{name}-{key}.json"
    if not path.exists():
        print(f"{claim}: {name} …", file=sys.stderr, flush=True)
        save(path, {"made": make()})
    return json.loads(path.read_text())["made"]
