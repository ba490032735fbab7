"""Libraries are silent, phone nobody, and wait without spinning; what we say becomes a short note.

Only the command line does this: a library must not change the settings of a program that uses it.
"""

import logging
import os
import site
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["note_warnings", "quiet_libraries"]

_SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # of downloads, and transformers' "Loading weights"
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Spinning OpenMP threads starve each other where trainings run side by side.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}
_PACKAGE = str(Path(__file__).resolve().parents[1])


def quiet_libraries() -> None:
    """Settings that libraries read from the environment when they load; the user's own win."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def note_warnings(note: Callable[[str], None]) -> None:
    """Send warnings and log records of ours, and warnings of the user's code, to `note`, once each.

    Warnings of other libraries are dropped: they are addressed to us, not to the user.
    """
    noted: set[str] = set()

    def once(text: str) -> None:
        if text not in noted:
            noted.add(text)
            note(text)

    def show(message: Warning | str, category: type, filename: str, *_: Any) -> None:
        if _is_ours(filename) or not _is_installed(filename):
            once(str(message))

    warnings.showwarning = show
    log = logging.getLogger("infalign")
    log.handlers = [_Notes(once)]
    log.propagate = False
    logging.lastResort = None  # other libraries' records


class _Notes(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.getMessage())


def _is_ours(filename: str) -> bool:
    return str(Path(filename).resolve()).startswith(_PACKAGE + os.sep)


def _is_installed(filename: str) -> bool:
    """Whether a file belongs to Python or to an installed package, rather than to the user."""
    folders = {*sysconfig.get_paths().values(), *site.getsitepackages()}
    return filename.startswith("<") or any(filename.startswith(folder) for folder in folders)
