"""Writing a frozen reward: all of the folder or nothing."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from infalign.integrations.frozen import (
    FACTS,
    FORMAT,
    IDS,
    MEANS,
    NEEDED,
    PROMPTS,
    REWARDS,
    digest_of,
    read_facts,
)

__all__ = ["freeze"]


def freeze(
    folder: str | Path,
    *,
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    reference_rewards: np.ndarray,
    rank_means: np.ndarray,
    facts: Mapping[str, Any],
) -> Path:
    """Write a frozen reward; all of it or nothing.

    Args:
        folder: made; one that holds the same frozen reward is left as it is.
        prompt_ids: P distinct ids.
        prompts: their texts.
        reference_rewards: "P K", finite, in any order within a row.
        rank_means: Φ̄(r) for r = 0 … K, see `Transform.rank_means`.
        facts: JSON-able: `k`, `beta`, `transform`, `procedure`, `policy`; `reward` with its `name`
            and, to be made again where it is asked, its `section` of an experiment file;
            `sampling` with `temperature`, `max_new_tokens` and `stop`; `end_marks`, the special
            tokens that end a response; optionally `special_tokens`, which no reader sees.

    Raises:
        ValueError: shapes that do not fit, a fact that lacks, or a folder that holds another one.
        FileExistsError: a folder that holds something else, or half of one.
    """
    folder, rewards = Path(folder).absolute(), np.asarray(reference_rewards, dtype=np.float64)
    _check(prompt_ids, prompts, rewards, np.asarray(rank_means), facts)
    ids = np.array([prompt_id.encode() for prompt_id in prompt_ids], dtype=bytes)
    order = np.argsort(ids)
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    unfinished.mkdir(parents=True)
    try:
        np.save(unfinished / IDS, ids[order])
        np.save(unfinished / REWARDS, np.sort(rewards[order], axis=1))
        np.save(unfinished / MEANS, np.asarray(rank_means, dtype=np.float64))
        table = pa.table({"prompt_id": list(prompt_ids), "prompt": list(prompts)}).take(order)
        with pa.ipc.new_file(unfinished / PROMPTS, table.schema) as writer:
            writer.write_table(table)
        files = {name: digest_of(unfinished / name) for name in (IDS, REWARDS, MEANS, PROMPTS)}
        written = {"format": FORMAT, **facts, "files": files}
        text = json.dumps(written, indent=2, ensure_ascii=False) + "\n"
        (unfinished / FACTS).write_text(text, encoding="utf-8")
        _put_in_place(unfinished, folder, json.loads(text))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _put_in_place(unfinished: Path, folder: Path, facts: dict[str, Any]) -> None:
    if _is_there(folder, facts):
        return
    for path in (*unfinished.iterdir(), unfinished):
        _flush(path)
    try:
        os.replace(unfinished, folder)
    except OSError as error:
        if _is_there(folder, facts):  # another run was faster
            return
        if not folder.exists():
            raise
        raise FileExistsError(
            error.errno,
            f"is there already, but holds no {FACTS} and so is no frozen reward, or half of a copy "
            "of one. Delete or move it, or choose another folder",
            str(folder),
        ) from error
    _flush(folder.parent)


def _is_there(folder: Path, facts: dict[str, Any]) -> bool:
    if not (folder / FACTS).exists():
        return False
    old = read_facts(folder)
    differing = sorted(key for key in old | facts if old.get(key) != facts.get(key))
    if differing:
        raise ValueError(
            f"{folder} holds another frozen reward; it differs in {', '.join(differing)}. Choose "
            "another folder, or delete this one."
        )
    return True


def _flush(path: Path) -> None:
    """To the disk; only POSIX systems can open a folder for that."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    rewards: np.ndarray,
    rank_means: np.ndarray,
    facts: Mapping[str, Any],
) -> None:
    lacking = [key for key in NEEDED if key not in facts]
    if lacking:
        raise ValueError(f"facts lack {', '.join(lacking)}; give them all.")
    if rewards.ndim != 2 or not len(prompt_ids) == len(prompts) == len(rewards) > 0:
        raise ValueError(
            f"{len(prompt_ids)} prompt ids and {len(prompts)} prompts came with reference rewards "
            f"of shape {rewards.shape}; one row of K rewards per prompt is needed."
        )
    if len(set(prompt_ids)) != len(prompt_ids):
        raise ValueError("a prompt id is repeated; ids must be distinct.")
    if rank_means.shape != (rewards.shape[1] + 1,) or facts["k"] != rewards.shape[1]:
        raise ValueError(
            f"a table of {rank_means.shape} training rewards and k = {facts['k']} came with "
            f"{rewards.shape[1]} rewards per prompt; K + 1 and K are needed."
        )
    if not (np.isfinite(rewards).all() and np.isfinite(rank_means).all()):
        raise ValueError("a reference reward or training reward is not finite; all must be.")
    if not facts["beta"] > 0:
        raise ValueError(f"beta is {facts['beta']}; it must be > 0, or the optimum is one answer.")
