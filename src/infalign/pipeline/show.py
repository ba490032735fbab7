"""What a pipeline says while it works; the command line brings a prettier one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Show", "Silent"]


class Show(Protocol):
    """Somewhere to say what is happening."""

    def say(self, text: str) -> None:
        """One line for the reader."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table of results."""
        ...

    def progress(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A progress bar for the block: call what it yields with (done, total)."""
        ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None: ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None: ...

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None
