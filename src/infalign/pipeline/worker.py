"""One training run in a process of its own: `python -m infalign.pipeline.worker FOLDER POLICY ...`.

Started by :mod:`.runs`, or by `accelerate launch` in several processes to take a policy's steps.
What it wants to say goes into files beside its checkpoints; it ends by itself when whoever started
it is gone.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["main"]


class FileShow:
    """Progress as a small JSON file that is replaced whenever it changes."""

    def __init__(self, path: Path, starter: int | None) -> None:
        self._path, self._parent, self._starter = path, os.getppid(), starter
        self._state: dict[str, tuple[int, int]] = {}

    def say(self, text: str) -> None:
        print(text, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        print(title, *rows, sep="\n", flush=True)

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, total: int) -> None:
            if os.getppid() != self._parent or not _is_there(self._starter):
                raise SystemExit("whoever started this run is gone; ending, to be resumed later")
            self._state[label] = (done, total)
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self._state))
            partial.replace(self._path)

        yield update


def _is_there(process: int | None) -> bool:
    if process is None:
        return True
    try:
        os.kill(process, 0)  # signal 0 asks, and does nothing
    except OSError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Run the stages of one policy; exit code 2 when the input was refused."""
    folder, policy, threads, *stages = arguments
    from infalign.pipeline.runs import REASON, run_folder

    home = run_folder(Path(folder), policy)
    try:
        _work(folder, policy, int(threads), stages, home)
    except (ValueError, OSError, ImportError) as error:
        import traceback

        traceback.print_exc()
        message = f"{error}".replace("\n", " ")
        print(message, flush=True)
        _leave(home / REASON, refused=True, message=message)
        return 2
    except Exception as error:
        _leave(home / REASON, refused=False, message=f"{type(error).__name__}: {error}")
        raise
    return 0


def _work(folder: str, policy: str, threads: int, stages: Sequence[str], home: Path) -> None:
    from infalign.config import load_experiment
    from infalign.pipeline import make_study
    from infalign.pipeline.runs import STARTER
    from infalign.pipeline.show import Silent
    from infalign.pipeline.stages import evaluate_policy, step_policy, train_policy
    from infalign.training import processes

    is_main = True
    if processes.started() > 1:
        import torch

        # Before the model is loaded: each process then finds its own GPU.
        is_main = processes.joined(cpu=not torch.cuda.is_available()).is_main_process
        if set(stages) != {"step"}:
            raise ValueError(
                f"{processes.started()} processes were started for {' and '.join(stages)}; several "
                "only take a policy's steps: give `step`, then `infalign run` does the rest."
            )
    starter = int(os.environ[STARTER]) if STARTER in os.environ else None
    show = FileShow(home / "progress.json", starter) if is_main else Silent()
    experiment = load_experiment(Path(folder) / "experiment.yaml")
    study = make_study(dataclasses.replace(experiment, output=folder), show)
    study.threads = threads
    work = {"step": step_policy, "train": train_policy, "evaluate": evaluate_policy}
    for stage in stages:
        work[stage](study, policy)
    if processes.started() > 1:
        processes.leave()


def _leave(path: Path, **reason: object) -> None:
    """Keep the first reason: other processes fall after it, because of it."""
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        json.dump(reason, file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
