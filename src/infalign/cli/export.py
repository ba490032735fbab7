"""`infalign export`: the calibrated reward, the prompts and the settings, for another engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from infalign.cli.console import print_result
from infalign.cli.failing import explained
from infalign.cli.opening import Changes, File, Output, opened_study

__all__ = ["app"]

app = typer.Typer(
    name="export",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Write what TRL, verl or OpenRLHF need to train on the calibrated reward.",
)

To = Annotated[
    Path | None,
    typer.Option("--to", metavar="FOLDER", help="Written here; by default OUTPUT/export."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="PATH", help="Weights the engine starts from, as it finds them."
    ),
]
PerStep = Annotated[
    int | None,
    typer.Option("--prompts-per-step", min=1, help="Prompts in one update; 32, or all if fewer."),
]
Samples = Annotated[
    int | None, typer.Option("--samples", min=2, help="Responses to each prompt in one update; 8.")
]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Times every prompt is visited.")]


@app.command()
@explained
def trl(
    file: File,
    to: To = None,
    model: Model = None,
    per_step: PerStep = None,
    samples: Samples = None,
    epochs: Epochs = 1,
    trainer: Annotated[
        str, typer.Option("--trainer", metavar="rloo|grpo", help="Whose options are written.")
    ] = "rloo",
    changes: Changes = None,
    output: Output = None,
) -> None:
    """For `trl rloo --config FILE`: a YAML file, prompts by their id, the frozen reward.

    Rollouts and rewards that are missing are made first.

    Examples:
      [cyan]infalign export trl experiment.yaml --to export[/]
      [cyan]trl rloo --config export/trl/rloo.yaml[/]
    """
    if trainer not in ("rloo", "grpo"):
        raise ValueError(f"--trainer {trainer}: there are trainers 'rloo' and 'grpo'.")
    asked = {"trainer": trainer, "model": model, "samples": samples, "epochs": epochs}
    _export("trl", file, to, asked | {"prompts_per_step": per_step}, changes, output)


def _verb(engine: str, does: str, command: str) -> Callable[..., None]:
    def verb(
        file: File,
        to: To = None,
        model: Model = None,
        per_step: PerStep = None,
        samples: Samples = None,
        epochs: Epochs = 1,
        changes: Changes = None,
        output: Output = None,
    ) -> None:
        asked = {"model": model, "samples": samples, "epochs": epochs}
        _export(engine, file, to, asked | {"prompts_per_step": per_step}, changes, output)

    verb.__doc__ = f"""{does}

    Rollouts and rewards that are missing are made first.

    Examples:
      [cyan]infalign export {engine} experiment.yaml --to export[/]
      [cyan]{command}[/]
    """
    return explained(verb)


app.command("verl")(
    _verb(
        "verl",
        "For verl: a Parquet file of prompts, the reward function, a command with every setting.",
        "bash export/verl/verl.sh trainer.n_gpus_per_node=8",
    )
)
app.command("openrlhf")(
    _verb(
        "openrlhf",
        "For OpenRLHF: a JSONL file of prompts, the reward function, a command with every option.",
        "bash export/openrlhf/openrlhf.sh",
    )
)


def _export(
    engine: str,
    file: Path,
    to: Path | None,
    asked: dict[str, Any],
    changes: list[str] | None,
    output: Path | None,
) -> None:
    with opened_study(file, changes, output) as (study, pipeline):
        where = pipeline.export(study, engine, to or study.folder / "export", **asked)
        print_result(str(where))
