"""`infalign init`: an experiment file to start from, with every choice explained in it."""

import importlib.resources
from pathlib import Path
from typing import Annotated

import typer

from infalign.cli.console import Terminal, print_result
from infalign.cli.failing import explained

__all__ = ["init", "starter_text"]


@explained
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "experiment.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented experiment file to start from.

    As written it aligns the embedded model for best-of-4; what to change for a model, prompts \
and a reward of your own stands beside each line.

    Examples:
      [cyan]infalign init[/]                     writes experiment.yaml
      [cyan]infalign init mine.yaml[/]           writes mine.yaml
    """
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists. Give another name, or --force to replace it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(starter_text(), encoding="utf-8")
    print_result(str(path))
    Terminal().say(f"Look at it, then: infalign run {path}")


def starter_text() -> str:
    """The file `infalign init` writes."""
    return importlib.resources.files("infalign.cli").joinpath("starter.yaml").read_text("utf-8")
