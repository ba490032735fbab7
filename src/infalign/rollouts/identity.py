"""Whose rollouts a store holds: the policy's weights, its sampling law and the seed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import filelock

from infalign.protocols import Sampler
from infalign.rollouts.shards import content_key, explained, make_folder, write_atomically

__all__ = [
    "LOCK",
    "identity_of",
    "opened",
    "read_identity",
    "require_same",
    "store_key",
]

FORMAT = 1
IDENTITY, LOCK = "store.json", "store.lock"

PATIENCE = 100
"""Tenths of a second that another run may take to create the store."""


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


def opened(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of the store at `path`, made if there is none; refused if it is another's.

    Raises:
        ValueError: if the store is another's.
        OSError: if the folder cannot be written.
    """
    if not (path / IDENTITY).exists():
        _create(path, identity)
    stored = read_identity(path)
    require_same(path, stored, identity)
    return stored


def _create(path: Path, identity: dict[str, Any]) -> None:
    """Write `store.json`, unless another run is first: then the store is what that one made it.

    Raises:
        ValueError: if there are rollouts already.
        BlockingIOError: if another run keeps the lock and writes no identity.
        OSError: if the folder cannot be written.
    """
    lock = filelock.FileLock(path / LOCK)
    with explained(f"cannot write {IDENTITY}", path):
        make_folder(path)
    for _ in range(PATIENCE):
        # Asked each time: who made the store may be filling it, and keep the lock for days.
        if (path / IDENTITY).exists():
            break
        if _locked(lock):
            try:
                _create_alone(path, identity)
            finally:
                lock.release()
    else:
        raise BlockingIOError(
            f"{path} has no {IDENTITY}, but another run holds its lock. Stop that run, or use "
            "another folder."
        )


def _locked(lock: filelock.BaseFileLock) -> bool:
    with explained("cannot lock the store", Path(lock.lock_file).parent):
        try:
            lock.acquire(timeout=0.1, poll_interval=0.02)
        except filelock.Timeout:
            return False
    return True


def _create_alone(path: Path, identity: dict[str, Any]) -> None:
    if (path / IDENTITY).exists():
        return
    if any(path.glob("rollouts/*.parquet")):
        raise ValueError(
            f"{path} holds rollouts but no {IDENTITY} that says whose they are. Restore that file, "
            "or use another folder."
        )
    data = json.dumps(identity, indent=2).encode() + b"\n"
    write_atomically(path / IDENTITY, data, path / "partial")


def read_identity(path: Path) -> dict[str, Any]:
    """What `store.json` says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of a later format.
    """
    file = path / IDENTITY
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
