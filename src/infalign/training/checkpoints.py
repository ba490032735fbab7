"""Keeping a run safe: written whole or not at all, resumed bit for bit.

`state.pt` is everything a run needs to go on (weights, optimiser, log, identity of the run);
`weights-NNNNNN.pt` are the trainable weights along the way, for measuring the policy at several KL.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["load_weights", "trainable_weights"]


def trainable_weights(module: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """Copies of the parameters with `requires_grad`, by name.

    Raises:
        ValueError: There are none.
    """
    weights = {
        name: parameter.detach().clone()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    if not weights:
        raise ValueError(
            "the policy has no trainable parameters (none has requires_grad); load it with a LoRA "
            "adapter, or unfreeze the parameters that should learn."
        )
    return weights


def put_weights(module: "torch.nn.Module", weights: Mapping[str, "torch.Tensor"]) -> None:
    """Copies weights into the module's trainable parameters, all of them and no others."""
    import torch

    own = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise ValueError(
            f"the checkpoint does not fit the policy: {len(odd)} trainable parameters differ, "
            f"first {odd[0]!r}. Load the policy with the settings it was trained with."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def load_weights(module: "torch.nn.Module", path: Path) -> None:
    """Sets the module's trainable parameters to those of a `weights-NNNNNN.pt` file."""
    import torch

    put_weights(module, torch.load(path, weights_only=True))


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes with `torch.save`, atomically: a killed writer leaves the old file."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is atomic only within one file system.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_state(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The saved state, or None where there is none.

    Raises:
        ValueError: The state belongs to a run with other settings.
    """
    if not path.exists():
        return None
    import torch

    state = torch.load(path, weights_only=True)
    refuse_other_run(path.parent, state["identity"], identity)
    return state


def refuse_other_run(directory: Path, found: str, identity: Mapping[str, Any]) -> None:
    """Raises ValueError where `found` is the identity text of another run than `identity`."""
    before, now = json.loads(found), json.loads(identity_text(identity))
    for key in now:
        if now[key] != before.get(key):
            raise ValueError(
                f"{directory} holds a run with another {key} ({before.get(key)!r}, now "
                f"{now[key]!r}); going on from it would give neither run. Choose another "
                "directory, or delete this one to start afresh."
            )


def weights_path(directory: Path, step: int) -> Path:
    """Where the trainable weights after `step` updates are kept."""
    return directory / f"weights-{step:06d}.pt"


def identity_text(identity: Mapping[str, Any]) -> str:
    """The identity as stored in a state."""
    return json.dumps(identity, default=str)
