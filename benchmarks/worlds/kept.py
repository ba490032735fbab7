"""What is slow to find is found once, by one program at a time, and kept."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from benchmarks.arena.runs import is_whole, save_arrays

__all__ = ["once"]


def once(path: Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a file, made first if it is missing; whoever comes meanwhile waits."""
    if not is_whole(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not is_whole(path):
                save_arrays(path, **make())
    with np.load(path) as stored:
        return dict(stored)
