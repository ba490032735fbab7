"""Training runs side by side: one process for each policy, watched through files.

A run is `train`, then `evaluate` of its checkpoints, in a process of its own, so that several use
the cores together. Where one fails the others are ended too, since the comparison needs them all;
what each has made is on disk, and the same command goes on from there.

Where several processes train one policy, they take its steps and end; a single one then finds the
steps taken, writes the results and measures, so that nothing waits for the others for long.
"""

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infalign.pipeline.launching import command_of, has_gpu
from infalign.pipeline.show import Show

__all__ = ["REASON", "STARTER", "processes_and_threads", "run_folder", "run_side_by_side"]

REASON = "reason.json"
"""Why a run ended early, left by the first of its processes that did."""
STARTER = "INFALIGN_STARTER"
"""Environment variable with the process id of whoever started a run, perhaps by a launcher."""
_LOOK_EVERY = 0.3
"""Seconds between looks at the runs' progress files."""


def processes_and_threads(policies: int, each: int = 1) -> tuple[int, int]:
    """How many runs at a time, and CPU threads for each process.

    On a CPU half as many runs again as cores: runs differ in length, and a core should not idle
    while the last one ends. On a GPU one at a time.

    Args:
        policies: runs in all.
        each: processes of one run.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if has_gpu():
        return 1, max(1, cores // each)
    runs = max(1, min(policies, (cores + cores // 2) // each))
    return runs, max(1, cores // (runs * each))


def run_side_by_side(
    folder: Path, policies: Sequence[str], stages: Sequence[str], show: Show, training: Any
) -> None:
    """Run the stages of each policy in a process of its own, or its steps in several.

    Raises:
        ValueError: a run refused its input; the message is its own.
        RuntimeError: a run broke; the message names its log.
    """
    at_a_time, threads = processes_and_threads(len(policies), training.processes)
    waiting = list(policies)
    running: dict[str, _Run] = {}
    with ExitStack() as stack:
        stack.callback(lambda: [run.process.terminate() for run in running.values()])
        bars: dict[str, Callable[[int, int], None]] = {}
        while waiting or running:
            while waiting and len(running) < at_a_time:
                policy = waiting.pop(0)
                running[policy] = _Run(folder, policy, _parts(folder, policy, stages, training))
                running[policy].start(threads)
            for policy, run in list(running.items()):
                ended = run.process.poll() is not None
                _follow(folder, policy, bars, stack, show)
                if ended:
                    _require_success(folder, policy, running.pop(policy).process.returncode)
                    if run.parts:
                        run.start(threads)
                        running[policy] = run
            time.sleep(_LOOK_EVERY)


def run_folder(folder: Path, policy: str) -> Path:
    """Where a policy's training is kept."""
    return folder / "train" / policy


Part = tuple[Any, Sequence[str]]
"""How to start the processes of a part of a run, and its stages."""


def _parts(folder: Path, policy: str, stages: Sequence[str], training: Any) -> list[Part]:
    alone = dataclasses.replace(training, processes=1, accelerate=None)
    trained = (run_folder(folder, policy) / "checkpoints.json").exists()
    if training.processes == 1 or trained:
        return [(alone, stages)]
    return [(training, ["step"]), (alone, stages)]


class _Run:
    """A policy's run under way: the process that is watched, and the parts still to start."""

    process: "subprocess.Popen[bytes]"

    def __init__(self, folder: Path, policy: str, parts: list[Part]) -> None:
        self.folder, self.policy, self.parts = folder, policy, parts

    def start(self, threads: int) -> None:
        """Start the next part."""
        home = run_folder(self.folder, self.policy)
        home.mkdir(parents=True, exist_ok=True)
        for name in ("progress.json", REASON):
            (home / name).unlink(missing_ok=True)
        training, stages = self.parts.pop(0)
        command = command_of(
            training,
            "infalign.pipeline.worker",
            [str(self.folder), self.policy, str(threads), *stages],
            has_gpu=has_gpu(),
        )
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), STARTER: str(os.getpid())}
        with (home / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
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
    home = run_folder(folder, policy)
    refused, last = _reason(home)
    if refused:
        refusal = ValueError(last)
        refusal.add_note(f"What was finished is kept in {folder}; the same command resumes.")
        raise refusal
    raise RuntimeError(
        f"training {policy!r} broke (exit code {code}): {last}. The whole log is "
        f"{home / 'log.txt'}; what it finished is kept, and the same command goes on from there."
    )


def _reason(home: Path) -> tuple[bool, str]:
    """Whether the run refused its input, and its last words: those of the process that fell first,
    since a launcher speaks after them and has an exit code of its own."""
    try:
        reason = json.loads((home / REASON).read_text(encoding="utf-8"))
        return reason["refused"], reason["message"]
    except (FileNotFoundError, json.JSONDecodeError):  # killed, or fell before it could say
        log = (home / "log.txt").read_text(encoding="utf-8", errors="replace")
        lines = log.strip().splitlines()
        return False, lines[-1] if lines else "it said nothing"
