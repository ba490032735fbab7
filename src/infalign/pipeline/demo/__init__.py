"""The demo: a real model aligned for best-of-4, in two acts and one report.

Act one asks for one-token responses, where the policy's whole law can be listed: everything is
exact, and a trained policy has to land on its predicted curve. Act two asks for free text, where
rollouts are sampled and training comes as close to the tilt as a few minutes allow.
"""

import contextlib
import dataclasses
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from infalign.config import Experiment, validate_experiment
from infalign.pipeline import stages
from infalign.pipeline.show import Show, Silent
from infalign.pipeline.study import Study
from infalign.report import Act, Report, Stage, write_report
from infalign.report.finding import headline

__all__ = ["ACTS", "demo", "demo_experiment"]

ACTS = ("one", "two")
TITLE = "Aligning a language model for best-of-4"
SUMMARY = (
    "SmolLM2-135M-Instruct goes on with film reviews; a head fitted on people's ratings rewards "
    "what it writes. It is trained for the way it will be decoded, the best of four answers "
    "(InfAlign: calibrate the reward to its quantile, transform, train), and by the same solver "
    "on the raw reward and on the calibrated reward alone. All are compared at equal KL."
)
ABOUT = {
    "one": "Responses are one token long, so the law of every policy can be listed: calibration, "
    "KL, win rates and the gradient are sums without sampling error. What theory predicts is what "
    "a trained language model must show.",
    "two": "Responses are free text. Quantiles come from K stored rollouts, training fits the "
    "exact tilt of those rollouts, and win rates are measured on fresh samples.",
}
SMOKE: dict[str, dict[str, Any]] = {
    "one": {
        "prompts": {"train": 6, "test": 4},
        "policy": {"candidates": 24},
        "training": {"steps": 6, "prompts_per_step": 3, "checkpoint_every": 3},
        "evaluate": {"checkpoints": 2},
    },
    "two": {
        "prompts": {"train": 4, "test": 3},
        "rollouts": {"k": 16},
        "training": {"kl": 0.5, "steps": 4, "prompts_per_step": 2, "checkpoint_every": 2},
        "evaluate": {"samples": 8, "ns": [1, 2, 4, 8], "checkpoints": 2},
    },
}
"""The same, too small to show anything but that it works."""


def demo(
    output: str | Path,
    show: Show | None = None,
    *,
    seed: int = 0,
    acts: Sequence[str] = ACTS,
    smoke: bool = False,
) -> Path:
    """Run the demo, or what of it is not yet in `output`.

    Returns:
        The path of report.html.
    """
    show = show or Silent()
    _fetch(show)
    studies = [_study(Path(output), act, seed, smoke, show) for act in acts]
    for act, study in zip(acts, studies, strict=True):
        show.say(f"Act {act}: {ABOUT[act]}")
        stages.calibrate(study)
    told: list[Act] = []
    for act, study in zip(acts, studies, strict=True):
        show.say(f"Act {act}: training {len(study.policies)} policies side by side")
        stages.evaluate(study)
        told.append(_told(study, act))
        show.say(f"Act {act}: {headline(told[-1])}")
    return write_report(_report(told, studies), Path(output))


def demo_experiment(act: str, output: Path, seed: int = 0, smoke: bool = False) -> Experiment:
    """The experiment file of an act.

    Example:
        >>> demo_experiment("one", Path("runs/demo/act-one")).procedure.n
        4
    """
    text = (
        importlib.resources.files("infalign.pipeline.demo")
        .joinpath(f"act_{act}.yaml")
        .read_text("utf-8")
    )
    data = yaml.safe_load(text)
    for section, changes in SMOKE[act].items() if smoke else ():
        data[section] |= changes
    data |= {"output": str(output), "seed": seed}
    return validate_experiment(data, f"act_{act}.yaml")


def _fetch(show: Show) -> None:
    from infalign.assets import AssetError, fetch

    fetch(["smollm2-135m-instruct"], show.say)
    with contextlib.suppress(AssetError):  # the training reward says what it does without
        fetch(["all-minilm-l6-v2"], show.say)


def _study(output: Path, act: str, seed: int, smoke: bool, show: Show) -> Study:
    from infalign.pipeline import open_study

    return open_study(demo_experiment(act, output / f"act-{act}", seed, smoke), show)


def _told(study: Study, act: str) -> Act:
    from infalign.pipeline.reporting import act_of

    return act_of(study, study.experiment.name, ABOUT[act])


def _report(told: Sequence[Act], studies: Sequence[Study]) -> Report:
    from infalign.pipeline.reporting import manifest_of, today

    total = sum(stage.seconds for act in told for stage in act.cost)
    cost = (Stage("both acts", total, note="installation and fetching not included"),)
    manifest = dataclasses.replace(manifest_of(studies[0]), experiment="")
    return Report(TITLE, tuple(told), SUMMARY, today(), cost, manifest)
