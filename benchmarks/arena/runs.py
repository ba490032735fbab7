"""Runs, each made once: the law a method ends at, kept under everything it depends on.

What is interrupted starts again at the first run that is missing; claims share runs, because a law
can be decoded by any procedure and judged by any judge afterwards.
"""

import dataclasses
import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Float

from benchmarks.arena.sources import code_of
from benchmarks.arena.training import train
from benchmarks.arena.world import World
from benchmarks.methods.method import Method
from infalign.rollouts.shards import write_atomically

__all__ = ["FOLDER", "Run", "ensure", "is_whole", "kept", "save_arrays"]

FOLDER = Path(os.environ.get("INFALIGN_BENCH") or Path(__file__).parents[2] / "runs" / "bench")
"""Where runs are kept. Not part of the repository."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One method, trained once in one world."""

    label: str
    """Unique within the world: method and aim, such as `optimal-best_of_4-kl1.1`."""
    method: Method
    """What is minimised."""
    seed: int = 0
    """Of the adapter, the batches and the store."""

    def path(self, world: World) -> Path:
        """Its file: named by label and seed, with a hash of world, method and their code."""
        code = code_of(type(self.method).__module__, "benchmarks.arena.training")
        identity = f"{world.fingerprint} {self.method!r} {code}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:10]
        return FOLDER / world.name / f"{self.label}-seed{self.seed}-{key}.npz"


def ensure(
    world: World, runs: Sequence[Run], progress: Callable[[int, int, str], None] | None = None
) -> list[Path]:
    """Makes the runs that are missing, in order.

    Args:
        world: Where.
        runs: Which; equal ones are made once.
        progress: Called with (done, all, label) before each run and at the end.
    """
    paths = [run.path(world) for run in runs]
    for number, (run, path) in enumerate(zip(runs, paths, strict=True)):
        if progress:
            progress(number, len(runs), run.label)
        if not is_whole(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):  # another claim may be at it
                if not is_whole(path):
                    _make(world, run, path)
    if progress:
        progress(len(runs), len(runs), "done")
    return paths


def _make(world: World, run: Run, path: Path) -> None:
    began = time.process_time()
    law, result = train(world, run.method, run.seed)
    log = np.array([(row["step"], row["kl"], row["loss"]) for row in result.rows])
    seconds = np.array(time.process_time() - began)
    save_arrays(path, law=law, log=log, cpu_seconds=seconds)


def kept(world: World, run: Run) -> Float[np.ndarray, "P C"]:
    """The law of a run that was made, over all prompts of the world.

    Raises:
        FileNotFoundError: it was not.
    """
    path = run.path(world)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; call ensure(world, [run]) first.")
    with np.load(path) as stored:
        return stored["law"]


def is_whole(path: Path) -> bool:
    """Whether an .npz is there and can be read; what a full disk cut short is made again."""
    return path.exists() and zipfile.is_zipfile(path)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as .npz, whole or not at all."""
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue(), path.parent)
