"""`result.json`: what a claim measured, and with what."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infalign.evaluation import Estimate
from infalign.rollouts.shards import write_atomically

__all__ = ["about", "commit", "recorded", "save"]

PACKAGES = ("infalign", "numpy", "scipy", "torch", "transformers", "peft", "trl")


def about(*, seed: int, mode: str, **more: Any) -> dict[str, Any]:
    """Versions, machine, commit, seed and mode (`full` or `smoke`) of a result."""
    found: dict[str, Any] = {"mode": mode, "seed": seed, "commit": commit()}
    found["device"] = _device()
    found["versions"] = {"python": platform.python_version(), **_versions()}
    return found | more


def recorded(estimate: Estimate, digits: int = 5) -> dict[str, float]:
    """An estimate as results keep it: value, standard error, 95 % interval, prompts."""
    names = ("value", "se", "low", "high")
    kept: dict[str, float] = {name: round(getattr(estimate, name), digits) for name in names}
    return kept | {"n": estimate.n}


def save(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result whole or not at all; arrays as lists.

    Raises:
        ValueError: the result there has what this one lacked the data for, or a value is no number.
    """
    lacking = set(result.get("absent") or ())
    if lacking and path.exists() and not lacking <= set(_read(path).get("absent") or ()):
        raise ValueError(
            f"{path} holds results of {', '.join(sorted(lacking))}, for which there is no data "
            "now; it is left as it is. Set INFALIGN_DATA, or write elsewhere by --output."
        )
    text = json.dumps(result, indent=1, default=_plain, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), path.parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return {}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written to a result.")


def commit() -> str:
    """The commit; `-dirty` where code was changed since."""
    here = {"capture_output": True, "text": True, "cwd": Path(__file__).parents[2]}
    named = subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], **here).stdout.strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py"], **here).returncode
    return f"{named}{'-dirty' if changed == 1 else ''}" if named else "unknown"


def _device() -> str:
    try:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    except ModuleNotFoundError:
        pass
    return f"CPU, {os.cpu_count()} cores"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
