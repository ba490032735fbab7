"""Whose results a folder holds: the experiment file it keeps, compared with the one given."""

import dataclasses
from pathlib import Path

import yaml

from infalign.config import Experiment, dump_experiment, validate_experiment, wherever_it_runs
from infalign.rollouts.shards import explained

__all__ = ["refuse_other", "saved"]


def refuse_other(folder: Path, experiment: Experiment) -> None:
    """Make the folder, and refuse one that holds another experiment's results."""
    path = folder / "experiment.yaml"
    with explained("the output folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
        old = path.read_text(encoding="utf-8") if path.exists() else None
    before, now = None if old is None else _completed(old), saved(experiment)
    if before is not None and before != now:
        raise ValueError(
            f"{folder} holds the results of another experiment; it differs in "
            f"{_changed(before, now)}. Choose another output folder, or delete this one to start "
            "anew."
        )


def saved(experiment: Experiment) -> str:
    """The experiment file as the folder keeps it: wherever it is moved, whoever did the work."""
    return dump_experiment(dataclasses.replace(wherever_it_runs(experiment), output="."))


def _completed(text: str) -> str:
    """A saved experiment file with the keys that came after it at their defaults."""
    try:
        return saved(validate_experiment(yaml.safe_load(text)))
    except (ValueError, yaml.YAMLError):
        return text


def _changed(old: str, new: str) -> str:
    before, after = yaml.safe_load(old), yaml.safe_load(new)
    names = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return ", ".join(sorted(names)) or "its form"
