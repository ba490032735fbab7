"""One training run in a process of its own: `python -m infalign.pipeline.worker FOLDER POLICY ...`.

Started by :mod:`.runs`. What it wants to say goes into files beside its checkpoints; it ends by
itself when whoever started it is gone.
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

    def __init__(self, path: Path) -> None:
        self._path, self._parent = path, os.getppid()
        self._state: dict[str, tuple[int, int]] = {}

    def say(self, text: str) -> None:
        print(text, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        print(title, *rows, sep="\n", flush=True)

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, total: int) -> None:
            if os.getppid() != self._parent:
                raise SystemExit("whoever started this run is gone; ending, to be resumed later")
            self._state[label] = (done, total)
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self._state))
            partial.replace(self._path)

        yield update


def main(arguments: Sequence[str]) -> int:
    """Run the stages of one policy; exit code 2 when the input was refused."""
    folder, policy, threads, *stages = arguments
    from infalign.config import load_experiment
    from infalign.pipeline import make_study
    from infalign.pipeline.runs import run_folder
    from infalign.pipeline.stages import evaluate_policy, train_policy

    show = FileShow(run_folder(Path(folder), policy) / "progress.json")
    try:
        experiment = load_experiment(Path(folder) / "experiment.yaml")
        study = make_study(dataclasses.replace(experiment, output=folder), show)
        study.threads = int(threads)
        work = {"train": train_policy, "evaluate": evaluate_policy}
        for stage in stages:
            work[stage](study, policy)
    except (ValueError, OSError, ImportError) as error:
        import traceback

        traceback.print_exc()
        print(f"{error}".replace("\n", " "), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
