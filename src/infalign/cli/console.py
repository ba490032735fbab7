"""What the command line shows: notes and bars on standard error, results on standard output.

On a terminal bars are alive, several at once where trainings run side by side. Elsewhere (a log
file, a batch job) the same progress becomes plain lines, fewer the longer it takes.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from infalign.cli.pace import Pace, written_duration, written_rate

__all__ = ["Terminal", "print_result", "print_table"]

Update = Callable[[int, int], None]

_FIRST_LINE_AFTER = 5.0
"""Seconds until the first plain progress line; each further one waits half as long again."""
_LINE_AT_LEAST_EVERY = 60.0
_NUMERIC = frozenset("0123456789-−+±–.")
_WIDE = 10_000
"""Columns of a file, which has none: a table is not squeezed and a line is not broken."""


class Terminal:
    """Says what a pipeline does; the rich counterpart of `infalign.pipeline.Silent`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """For the streams of this process; `clock` counts seconds."""
        self._clock = clock
        self._messages = Console(stderr=True, highlight=False)
        self._is_live = self._messages.is_terminal and not self._messages.is_dumb_terminal
        self._messages.soft_wrap = not self._is_live  # a log file breaks no lines
        self._lock = threading.RLock()
        self._bars: Progress | None = None
        self._open = 0

    def close(self) -> None:
        """Take away bars whose blocks have not ended, so that last words can be read."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None

    def say(self, text: str) -> None:
        """One line for the reader."""
        self._print(Text(text))

    def note(self, text: str) -> None:
        """A warning, short."""
        self._print(Text.assemble(("note: ", "yellow"), text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table of results."""
        with self._lock:
            # Where both streams are one terminal, the console of the bars must know what is
            # written, lest a bar overwrite it.
            is_shared = self._bars is not None and sys.stdout.isatty()
            print_table(title, columns, rows, self._messages if is_shared else None)

    @contextlib.contextmanager
    def working(self, label: str) -> Iterator[None]:
        """A sign of life for a block that cannot say how far it is; none where no one looks."""
        with self._messages.status(label) if self._is_live else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def progress(self, label: str, aside: Callable[[], str] | None = None) -> Iterator[Update]:
        """A bar, or plain lines where there is no terminal, for the block.

        Args:
            label: what is being done.
            aside: what else to show beside how far it is, asked as often as that is shown; what
                does not fit the line is left out.
        """
        pace = Pace(self._clock, aside)
        with self._bar(label, pace) if self._is_live else _Lines(label, pace, self.say) as show:

            def update(done: int, total: int) -> None:
                with self._lock:
                    pace.update(done, total)
                    show()

            yield update

    @contextlib.contextmanager
    def _bar(self, label: str, pace: Pace) -> Iterator[Callable[[], None]]:
        task = self._opened(label, pace)

        def show() -> None:
            bars = self._bars
            if bars is None or task not in bars.task_ids:
                return
            bars.update(task, total=pace.total, completed=pace.done)
            if pace.is_finished:  # before its block ends, as others may go on for long
                self._retire(task, label, pace)

        try:
            yield show
        finally:
            self._closed(task, label, pace)

    def _opened(self, label: str, pace: Pace) -> TaskID:
        with self._lock:
            if self._bars is None:
                self._bars = _bars(self._messages)
                self._bars.start()
            self._open += 1
            return self._bars.add_task(label, total=None, pace=pace)

    def _retire(self, task: TaskID, label: str, pace: Pace) -> None:
        assert self._bars is not None
        self._bars.remove_task(task)
        if pace.was_there:
            return
        mark = ("✓ ", "green") if pace.is_finished else ("· ", "yellow")
        self._print(Text.assemble(mark, (_summary(label, pace), "dim")))

    def _closed(self, task: TaskID, label: str, pace: Pace) -> None:
        with self._lock:
            if self._bars is None:
                return
            if task in self._bars.task_ids:
                self._retire(task, label, pace)
            self._open -= 1
            if not self._open:
                self._bars.stop()
                self._bars = None

    def _print(self, text: Text) -> None:
        with self._lock:
            self._messages.print(text)


class _Lines:
    """Progress as plain lines, at growing distances."""

    def __init__(self, label: str, pace: Pace, say: Callable[[str], None]) -> None:
        self._label, self._pace, self._say = label, pace, say
        self._wait = self._due = _FIRST_LINE_AFTER
        self._is_ended = False

    def __enter__(self) -> Callable[[], None]:
        return self._show

    def __exit__(self, *error: object) -> None:
        self._end()

    def _show(self) -> None:
        if self._pace.is_finished:
            self._end()
        elif self._pace.elapsed >= self._due:
            self._wait = min(1.5 * self._wait, _LINE_AT_LEAST_EVERY)
            self._due = self._pace.elapsed + self._wait
            self._say(_line(self._label, self._pace))

    def _end(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            if not self._pace.was_there:
                self._say(_summary(self._label, self._pace))


class _PaceColumn(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        return Text(_pace(task.fields["pace"]), style="cyan")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.completed}/{task.total}", style="dim"),
        _PaceColumn(Column(no_wrap=True)),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )


def _line(label: str, pace: Pace) -> str:
    share = f"{100 * pace.done / pace.total:.0f} %" if pace.total else ""
    return f"{label}  {pace.done}/{pace.total}  {share}  {_pace(pace)}".rstrip()


def _pace(pace: Pace) -> str:
    if pace.rate is None or pace.remaining is None:
        return written_duration(pace.elapsed) + _aside(pace)
    return f"{written_rate(pace.rate)}, {written_duration(pace.remaining)} left{_aside(pace)}"


def _summary(label: str, pace: Pace) -> str:
    counted = "" if pace.total is None else f"  {pace.done}/{pace.total}"
    rate = "" if pace.rate is None else f"  {written_rate(pace.rate)}"
    return f"{label}{counted}  in {written_duration(pace.elapsed)}{rate}"


def _aside(pace: Pace) -> str:
    said = pace.aside()
    return f"  {said}" if said else ""


def print_result(text: str) -> None:
    """A result, as it is, to standard output."""
    print(text, flush=True)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console | None = None,
) -> None:
    """A table, columns of numbers to the right; to standard output where no console is given."""
    table = Table(header_style="bold")
    for place, column in enumerate(columns):
        is_number = all(row[place][:1] in _NUMERIC for row in rows) and bool(rows)
        table.add_column(Text(column), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = console or Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    console.print(Text(title, "bold"))
    console.print(table)
