"""`run`, `demo` and a verb per stage: what goes on between an experiment file and its report."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infalign.cli.console import print_result
from infalign.cli.failing import explained, kept
from infalign.cli.opening import Changes, File, Output, opened_study, pipeline_module, terminal

if TYPE_CHECKING:
    from infalign.pipeline import Study

__all__ = [
    "calibrate",
    "demo",
    "evaluate",
    "report",
    "reward",
    "rollout",
    "run",
    "train",
]

Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        "-p",
        metavar="NAME",
        help="Only this one: infalign, calibrated or raw; may be repeated.",
    ),
]


def _require_report_extra() -> None:
    """Before hours of work, not after them."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the report needs {' and '.join(missing)}: pip install 'infalign[report]'"
        )


@explained
def run(file: File, changes: Changes = None, output: Output = None) -> None:
    """Run an experiment, from prompts to report.html.

    What is finished is not done again: after Ctrl-C, a crash or a full disk, the same command \
goes on. The path of the report is the last line of the output.

    Examples:
      [cyan]infalign run experiment.yaml[/]
      [cyan]infalign run experiment.yaml --set training.kl=0.5 --output runs/kl-0.5[/]
    """
    _require_report_extra()
    with opened_study(file, changes, output) as (study, pipeline):
        pipeline.rollout(study)
        pipeline.reward(study)
        pipeline.calibrate(study)
        pipeline.evaluate(study)
        _show_report(pipeline.report(study))


@explained
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Written here; resumed from.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    act: Annotated[
        list[str] | None,
        typer.Option("--act", metavar="one|two", help="Only this act; may be repeated."),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Too small to show anything but that it works.")
    ] = False,
) -> None:
    """Align a real language model for best-of-4 and measure it: ten minutes, no model hub needed.

    Act one: one-token responses, where everything is exact and a trained policy must land on its \
predicted curve. Act two: free text. Both end in one report.

    Examples:
      [cyan]infalign demo[/]
      [cyan]infalign demo --output runs/other --seed 1[/]
    """
    _require_report_extra()
    acts = tuple(act or ("one", "two"))
    if unknown := [name for name in acts if name not in ("one", "two")]:
        raise ValueError(f"--act {unknown[0]}: there are acts 'one' and 'two'.")
    with kept(output), terminal() as show:
        pipeline = pipeline_module()
        _show_report(pipeline.demo(output, show, seed=seed, acts=acts, smoke=smoke))


@explained
def rollout(file: File, changes: Changes = None, output: Output = None) -> None:
    """Sample the reference: K responses to each prompt, kept in the store.

    The store is a folder of Parquet files under the output folder, readable with pandas, polars, \
duckdb or datasets. Responses that are there already are not sampled again.

    Examples:
      [cyan]infalign rollout experiment.yaml[/]
      [cyan]infalign rollout experiment.yaml --set rollouts.k=64[/]
    """
    with opened_study(file, changes, output) as (study, pipeline):
        pipeline.rollout(study)
        _show_folder(study)


@explained
def reward(file: File, changes: Changes = None, output: Output = None) -> None:
    """Score the rollouts by the training reward, the gold judge and the auditors.

    Every reward is kept beside its response, by name; a reward function that fails loses none \
of those before it.

    Examples:
      [cyan]infalign reward experiment.yaml[/]
    """
    with opened_study(file, changes, output) as (study, pipeline):
        pipeline.reward(study)
        _show_folder(study)


@explained
def calibrate(file: File, changes: Changes = None, output: Output = None) -> None:
    """Turn rewards into quantiles; show what ideal alignment of the rollouts would win.

    The ideal is the exact tilt of the stored rollouts: what training can reach at best, in seconds.

    Examples:
      [cyan]infalign calibrate experiment.yaml[/]
    """
    with opened_study(file, changes, output) as (study, pipeline):
        pipeline.calibrate(study)


@explained
def train(
    file: File, policy: Policies = None, changes: Changes = None, output: Output = None
) -> None:
    """Train the aligned policy and its baselines, side by side.

    Each in a process of its own, with checkpoints: what was stopped goes on from the last one.

    Examples:
      [cyan]infalign train experiment.yaml[/]
      [cyan]infalign train experiment.yaml --policy infalign[/]      without the baselines
    """
    with opened_study(file, changes, output) as (study, pipeline):
        pipeline.train(study, policy or None)
        _show_folder(study)


@explained
def evaluate(
    file: File, policy: Policies = None, changes: Changes = None, output: Output = None
) -> None:
    """Measure win rate and KL of the trained policies against the reference.

    On held-out prompts and on fresh samples of the training prompts, by the training reward and \
by judges that nothing was trained on. What is not trained yet is trained first.

    Examples:
      [cyan]infalign evaluate experiment.yaml[/]
      [cyan]infalign evaluate experiment.yaml --policy infalign --policy raw[/]
    """
    with opened_study(file, changes, output) as (study, pipeline):
        pipeline.evaluate(study, policy or None)
        _show_folder(study)


@explained
def report(file: File, changes: Changes = None, output: Output = None) -> None:
    """Write report.html and report.json: what was predicted beside what was measured.

    Makes what is missing first, and prints the path of report.html.

    Examples:
      [cyan]infalign report experiment.yaml[/]
    """
    with opened_study(file, changes, output) as (study, pipeline):
        _show_report(pipeline.report(study))


def _show_report(path: Path) -> None:
    print_result(str(path))


def _show_folder(study: "Study") -> None:
    print_result(str(study.folder))
