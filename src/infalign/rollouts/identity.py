"""Whose rollouts a store holds: the policy's weights, its sampling law and the seed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from infalign.protocols import Sampler
from infalign.rollouts.shards import content_key

__all__ = ["identity_of", "read_identity", "require_same", "store_key"]

FORMAT = 1


def store_key(policy: Sampler, seed: int) -> str:
    """A folder name for a policy's weights, its sampling law and a seed: one for each law."""
    return content_key(identity_of(policy, seed) | {"policy": ""})[:16]


def identity_of(policy: Sampler, seed: int) -> dict[str, Any]:
    """What a store records of its policy; all but `policy`, the name, must match."""
    sampling = dataclasses.asdict(policy.sampling)
    sampling["stop"] = list(sampling["stop"])
    return {
        "format": FORMAT,
        "policy": policy.name,
        "fingerprint": policy.fingerprint,
        "seed": seed,
        "sampling": sampling,
    }


def read_identity(path: Path) -> dict[str, Any]:
    """What `store.json` says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of a later format.
    """
    file = path / "store.json"
    if not file.exists():
        raise FileNotFoundError(f"{path} is no rollout store: it has no store.json.")
    try:
        identity = json.loads(file.read_text(encoding="utf-8"))
        lacking = {"format", "policy", "fingerprint", "seed", "sampling"} - identity.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}). Restore it from a copy.") from error
    if lacking:
        raise ValueError(f"{file} is damaged: it lacks {sorted(lacking)}. Restore it from a copy.")
    if identity["format"] != FORMAT:
        raise ValueError(
            f"{file} says format {identity['format']}; this version reads format {FORMAT}. Use "
            "the version of infalign that made the store, or another folder."
        )
    return identity


def require_same(path: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse to mix rollouts of two laws.

    Raises:
        ValueError: saying what differs, value by value.
    """
    there, here = (
        {"fingerprint": side["fingerprint"], "seed": side["seed"]} | side["sampling"]
        for side in (stored, given)
    )
    differing = [
        f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
        for key in here | there
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise ValueError(
            f"the store {path} holds rollouts of '{stored['policy']}' under other settings: "
            f"{'; '.join(differing)}. Mixed rollouts would calibrate neither policy. Use another "
            "folder, or the store's settings."
        )
