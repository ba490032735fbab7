"""Stages 1–9 in order: read this first.

prompts → rollouts → rewards → calibrate → transform → train → decode → evaluate → report. Each
stage writes what it makes into the experiment's folder and makes nothing twice, so every function
here resumes, and an interrupted run ends as an uninterrupted one would have.
"""

from pathlib import Path
from typing import Any

from infalign.config import ChoiceLM, Experiment
from infalign.pipeline.exporting import export
from infalign.pipeline.show import Show, Silent
from infalign.pipeline.stages import (
    calibrate,
    evaluate,
    report,
    reward,
    rollout,
    train,
)
from infalign.pipeline.stages import decode_policy as decode
from infalign.pipeline.study import Study

__all__ = [
    "Show",
    "Silent",
    "Study",
    "calibrate",
    "decode",
    "demo",
    "evaluate",
    "export",
    "make_study",
    "open_study",
    "report",
    "reward",
    "rollout",
    "run",
    "train",
]


def demo(output: str | Path, show: Show | None = None, **settings: Any) -> Path:
    """The embedded example in two acts; see :mod:`infalign.pipeline.demo`."""
    from infalign.pipeline.demo import demo as run_demo

    return run_demo(output, show, **settings)


def run(experiment: Experiment, show: Show | None = None) -> Path:
    """From prompts to a report.

    Returns:
        The path of report.html; report.json lies beside it.

    Raises:
        ValueError: something in the experiment cannot work; said before long work starts.
    """
    study = open_study(experiment, show)
    rollout(study)
    reward(study)
    calibrate(study)
    evaluate(study)
    return report(study)


def open_study(experiment: Experiment, show: Show | None = None) -> Study:
    """The experiment with its folder, after everything that can be checked at once was checked.

    Raises:
        ValueError: a missing prompt file, a policy or reward that cannot be loaded, prompts that
            do not fit the context window, or a folder that holds another experiment.
    """
    study = make_study(experiment, show)
    study.check()
    return study


def make_study(experiment: Experiment, show: Show | None = None) -> Study:
    """The same without the checks; nothing is loaded yet."""
    if isinstance(experiment.policy, ChoiceLM):
        from infalign.pipeline.enumerated import EnumeratedStudy as Kind
    else:
        from infalign.pipeline.sampled import SampledStudy as Kind
    return Kind(experiment, show or Silent())
