"""Training runs side by side: one process for each policy, watched through files.

A run is `train`, then `evaluate` of its checkpoints, in a process of its own, so that several use
the cores together. Where one fails the others are ended too, since the comparison needs them all;
what each has made is on disk, and the same command goes on from there.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from infalign.pipeline.show import Show

__all__ = ["processes_and_threads", "run_side_by_side"]

_LOOK_EVERY = 0.3
"""Seconds between looks at the runs' progress files."""


def processes_and_threads(policies: int) -> tuple[int, int]:
    """How many runs at a time, and CPU threads for each.

    On a CPU half as many runs again as cores: runs differ in length, and a core should not idle
    while the last one ends. On a GPU one at a time.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if torch.cuda.is_available():
        return 1, cores
    processes = max(1, min(policies, cores + cores // 2))
    return processes, max(1, cores // processes)


def run_side_by_side(
    folder: Path, policies: Sequence[str], stages: Sequence[str], show: Show
) -> None:
    """Run the stages of each policy in a process of its own.

    Raises:
        ValueError: a run refused its input; the message is its own.
        RuntimeError: a run broke; the message names its log.
    """
    processes, threads = processes_and_threads(len(policies))
    waiting, running = list(policies), {}
    with ExitStack() as stack:
        stack.callback(lambda: [process.terminate() for process in running.values()])
        bars: dict[str, Callable[[int, int], None]] = {}
        while waiting or running:
            while waiting and len(running) < processes:
                policy = waiting.pop(0)
                running[policy] = _start(folder, policy, stages, threads)
            for policy in list(running):
                ended = running[policy].poll() is not None
                _follow(folder, policy, bars, stack, show)
                if ended:
                    _require_success(folder, policy, running.pop(policy).returncode)
            time.sleep(_LOOK_EVERY)


def run_folder(folder: Path, policy: str) -> Path:
    """Where a policy's training is kept."""
    return folder / "train" / policy


def _start(
    folder: Path, policy: str, stages: Sequence[str], threads: int
) -> "subprocess.Popen[bytes]":
    home = run_folder(folder, policy)
    home.mkdir(parents=True, exist_ok=True)
    (home / "progress.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "infalign.pipeline.worker", str(folder), policy]
    command += [str(threads), *stages]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (home / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )


def _follow(
    folder: Path,
    policy: str,
    bars: dict[str, Callable[[int, int], None]],
    stack: ExitStack,
    show: Show,
) -> None:
    for label, (done, total) in _progress(folder, policy).items():
        if label not in bars:
            bars[label] = stack.enter_context(show.progress(label))
        bars[label](done, total)


def _progress(folder: Path, policy: str) -> dict[str, tuple[int, int]]:
    try:
        return json.loads((run_folder(folder, policy) / "progress.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _require_success(folder: Path, policy: str, code: int) -> None:
    if code == 0:
        return
    log = run_folder(folder, policy) / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    if code == 2:
        refusal = ValueError(last)
        refusal.add_note(f"What was finished is kept in {folder}; the same command resumes.")
        raise refusal
    raise RuntimeError(
        f"training {policy!r} broke (exit code {code}): {last}. The whole log is {log}; what it "
        "finished is kept, and the same command goes on from there."
    )
