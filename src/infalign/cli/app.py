"""The verbs, put together."""

from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from infalign.cli import answer, assets, export, plan, serve, stages, starter
from infalign.cli.console import print_result
from infalign.cli.failing import set_debug

__all__ = ["app", "run"]

START, ONE_BY_ONE = "Start here", "One stage at a time: each makes what it needs and is missing"
ANSWER = "Answer by a procedure"

app = typer.Typer(
    name="infalign",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked: bool) -> None:
    if is_asked:
        print_result(f"infalign {metadata.version('infalign')}")
        raise typer.Exit


@app.callback()
def infalign(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="With every error its traceback, after any verb too.")
    ] = False,
) -> None:
    """Train language models for the way they will be decoded.

    Calibrate a reward, transform it for the procedure you decode with (best-of-4, say), align, \
and measure the win rate after decoding.

      [cyan]infalign demo[/]                       a real model, in ten minutes
      [cyan]infalign plan --n 4 --kl 1[/]          what is to be won, before training
      [cyan]infalign init[/]                       writes a file to start from
      [cyan]infalign run experiment.yaml[/]        from prompts to report.html

    A run that was stopped goes on where it was: give the same command again.
    """


for name, verb in {
    "demo": stages.demo,
    "plan": plan.plan,
    "init": starter.init,
    "run": stages.run,
}.items():
    app.command(name, rich_help_panel=START)(verb)
for name in ("rollout", "reward", "calibrate", "train", "evaluate", "report"):
    app.command(name, rich_help_panel=ONE_BY_ONE)(getattr(stages, name))
app.command("decode", rich_help_panel=ANSWER)(answer.decode)
app.command("chat", rich_help_panel=ANSWER)(answer.chat)
app.command("serve", rich_help_panel=ANSWER)(serve.serve)
app.add_typer(export.app, name="export", rich_help_panel="Other engines")
app.add_typer(assets.app, name="assets", rich_help_panel="Embedded models and data")


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and end the process; `--debug` may stand anywhere."""
    import sys

    given = list(sys.argv[1:] if arguments is None else arguments)
    set_debug("--debug" in given)
    given = [word for word in given if word != "--debug"]
    try:
        app(given, prog_name="infalign")
    except KeyboardInterrupt:  # before or after a verb's own work
        sys.exit(130)
