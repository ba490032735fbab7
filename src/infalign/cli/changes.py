"""`--set training.kl=0.5`: single values of an experiment file, changed on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from infalign.config import Experiment

__all__ = ["changed", "experiment_from"]


def experiment_from(
    path: Path, changes: Sequence[str] = (), output: Path | None = None
) -> "Experiment":
    """The experiment of a file with changes, validated as one.

    Args:
        path: the YAML file.
        changes: `key.key=value` each, the value in YAML.
        output: another output folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file or a change is not right.
    """
    from infalign.config import read_experiment, validate_experiment

    changes = [*changes, *([f"output={output}"] if output else [])]
    try:
        data = read_experiment(path)
    except FileNotFoundError as error:
        error.add_note(_remedy(path))
        raise
    for change in changes:
        data = changed(data, change)
    source = " ".join([str(path), *(f"--set {change}" for change in changes)])
    return validate_experiment(data, source)


def changed(data: Any, change: str) -> Any:
    """Nested mappings with one value changed; the original stays.

    Example:
        >>> changed({"training": {"kind": "online", "kl": 1}}, "training.kl=0.5")
        {'training': {'kind': 'online', 'kl': 0.5}}
        >>> changed({"transform": "exponential"}, "transform.t=5")
        {'transform': {'kind': 'exponential', 't': 5}}
    """
    key, equals, text = change.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ValueError(
            f"--set {change}: a key and a value are needed, as in --set training.kl=0.5 or "
            "--set procedure.n=8."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {change}: the value is not YAML: {error}") from error
    return _replaced(data, path, value, change)


def _replaced(data: Any, path: Sequence[str], value: Any, change: str) -> Any:
    if not path:
        return value
    key, *rest = path
    if isinstance(data, list):
        if not key.isdigit() or int(key) >= len(data):
            raise ValueError(
                f"--set {change}: {key!r} is no place in a list of {len(data)}; 0 is the first."
            )
        place = int(key)
        item = _replaced(data[place], rest, value, change)
        return [*data[:place], item, *data[place + 1 :]]
    if isinstance(data, str):  # a bare kind stands for the section with that kind
        data = {"kind": data}
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"--set {change}: {data!r} stands above {key!r}, which holds no keys.")
    section = dict(data or {})
    section[key] = _replaced(section.get(key), rest, value, change)
    return section


def _remedy(path: Path) -> str:
    folder = path.parent
    found = sorted(folder.glob("*.y*ml"))[:5] if folder.is_dir() else []
    if found:
        return f"In {folder.resolve()} there is {', '.join(file.name for file in found)}."
    return f"`infalign init {path}` writes one to start from."
