"""From an experiment file on the command line to a checked study, shown in the terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infalign.cli.changes import experiment_from
from infalign.cli.console import Terminal
from infalign.cli.failing import is_debug, kept
from infalign.cli.quiet import note_warnings

if TYPE_CHECKING:
    from infalign.pipeline import Study

__all__ = ["Changes", "File", "Output", "opened_study", "pipeline_module", "terminal"]

File = Annotated[
    Path,
    typer.Argument(metavar="EXPERIMENT", help="The experiment file; `infalign init` writes one."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the file, e.g. training.kl=0.5; may be repeated.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Write here, whatever the file says."),
]


@contextmanager
def opened_study(
    file: Path, changes: list[str] | None, output: Path | None
) -> Iterator[tuple["Study", Any]]:
    """The checked study and the pipeline, for the block that works on them."""
    experiment = experiment_from(file, changes or (), output)
    with kept(experiment.output), terminal() as show:
        pipeline = pipeline_module()
        yield pipeline.open_study(experiment, show), pipeline


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Where the pipeline shows itself, with the warnings of the block as notes."""
    shown = Terminal()
    if not is_debug():
        note_warnings(shown.note)
    try:
        yield shown
    finally:
        shown.close()


def pipeline_module() -> Any:
    """The pipeline, loaded when it is needed: it brings torch."""
    here = str(Path.cwd())
    if here not in sys.path:  # a reward `my_rewards:f` lies beside the experiment, usually
        sys.path.insert(0, here)
    from infalign import pipeline

    return pipeline
