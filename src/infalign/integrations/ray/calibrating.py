"""`calibrate`: rewards → ranks, quantile and training reward, through a frozen reward.

Every worker maps the same folder, so the processes of one machine share its pages; machines share
it through a common file system, or receive it once each.
"""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infalign.integrations.frozen import FrozenReward
from infalign.integrations.ray.actors import placed, quieten
from infalign.integrations.ray.cluster import Workers, connect, require_ray
from infalign.quantile.ranks import count_ranks
from infalign.rollouts import RolloutStore

__all__ = ["COLUMNS", "Calibrate", "calibrate", "rewards_of"]

COLUMNS = ("below", "ties", "quantile", "training_reward")
"""What :func:`calibrate` adds to each row."""
CHAINED = "\n\nThe above exception was the direct cause of the following exception:\n\n"
ROWS = 65_536
"""Rows of a batch: large enough that Ray's share of the time is small, a few MB of memory."""


class Calibrate:
    """The actor: opens the frozen reward once, then calibrates batches of rows.

    Example:
        >>> import tempfile
        >>> from infalign.integrations.freezing import freeze
        >>> facts = {"reward": {"name": "r"}, "transform": "identity", "procedure": "best_of_1"}
        >>> facts |= {"policy": {}, "sampling": {"stop": []}, "end_marks": []}
        >>> folder = freeze(
        ...     Path(tempfile.mkdtemp()) / "frozen",
        ...     prompt_ids=["a"],
        ...     prompts=["?"],
        ...     reference_rewards=np.array([[0.0, 1.0]]),
        ...     rank_means=np.array([0.25, 0.5, 0.75]),
        ...     facts=facts | {"k": 2, "beta": 0.1},
        ... )
        >>> rows = pa.table({"prompt_id": ["a", "a"], "reward": [0.5, 1.0]})
        >>> Calibrate(folder)(rows).select(["quantile", "training_reward"]).to_pylist()
        [{'quantile': 0.5, 'training_reward': 0.5}, {'quantile': 0.75, 'training_reward': 0.625}]
    """

    def __init__(self, frozen: str | Path, files: dict[str, bytes] | None = None) -> None:
        """Open the folder; where its files are given, the copy that this machine makes of them."""
        folder = Path(frozen) if files is None else _unpacked(files)
        self._frozen = FrozenReward.load(folder, verify=False)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows with `prompt_id` and `reward` → the same rows with :data:`COLUMNS`.

        Raises:
            ValueError: a prompt without reference rewards, or a reward that is not finite.
        """
        ids = batch["prompt_id"].to_pylist()
        rewards = batch["reward"].to_numpy().astype(np.float64, copy=False)
        found = self._frozen.calibrate(ids, rewards)
        rows = self._frozen.rows_of(ids)
        below, ties = count_ranks(self._frozen.reference_rewards, rows, rewards[:, None])
        added = below[:, 0], ties[:, 0], found.quantiles, found.training_rewards
        for name, values in zip(COLUMNS, added, strict=True):
            batch = batch.append_column(name, pa.array(values))
        return batch


def calibrate(
    rewards: Any,
    frozen: str | Path,
    *,
    workers: Workers | None = None,
    output: str | Path | None = None,
    ship: bool = False,
    batch_size: int = ROWS,
) -> Any:
    """Rows (prompt_id, reward, …) with ranks, quantile and training reward, bit for bit as here.

    Args:
        rewards: a Ray `Dataset` or an Arrow table with columns `prompt_id` and `reward`; others
            are kept. Stored rewards: :func:`rewards_of`.
        frozen: folder of a frozen reward, as `infalign export` writes it.
        workers: who calibrates.
        output: Parquet file to write, by this process, in the order of the rows; whole or absent.
        ship: send the folder's files to each machine, once, instead of reading it there from a
            file system that all share.
        batch_size: rows calibrated at a time.

    Returns:
        A lazy Ray `Dataset`; or, with `output`, its path.

    Raises:
        FileNotFoundError: there is no frozen reward.
        ValueError: the frozen reward is damaged, a column is missing, or one is there already.
    """
    workers = workers or Workers()
    FrozenReward.load(frozen)
    connect("local", workers)
    ray = require_ray()
    dataset = rewards
    if isinstance(rewards, pa.Table):
        starts = range(0, max(1, len(rewards)), batch_size)
        dataset = ray.data.from_arrow([rewards.slice(start, batch_size) for start in starts])
    _require_columns(dataset.columns() or [])
    folder = Path(frozen).absolute()
    files = {file.name: file.read_bytes() for file in folder.iterdir()} if ship else None
    found = dataset.map_batches(
        Calibrate,
        batch_size=batch_size,
        batch_format="pyarrow",
        fn_constructor_args=(str(folder), files),
        **placed(workers, workers.count),
    )
    quieten(found)
    return found if output is None else _written(found, Path(output))


def rewards_of(store: RolloutStore, name: str) -> pa.Table:
    """Stored rewards `name`: prompt_id, sample, reward, sorted by prompt and sample.

    Raises:
        ValueError: there are none.
    """
    if name not in store.reward_names:
        raise ValueError(
            f"{store.path} has no rewards '{name}'; it has {list(store.reward_names)}. Score the "
            "rollouts first."
        )
    return store.reward_table(name)


def _require_columns(columns: list[str]) -> None:
    lacking = {"prompt_id", "reward"} - set(columns)
    if lacking or set(COLUMNS) & set(columns):
        raise ValueError(
            f"the rows have columns {columns}; prompt_id and reward are needed, and none of "
            f"{', '.join(COLUMNS)}, which are added. Rename or drop columns first."
        )


def _written(dataset: Any, path: Path) -> Path:
    dataset.context.execution_options.preserve_order = True
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    writer = None
    try:
        for batch in _raised_here(dataset.iter_batches(batch_size=ROWS, batch_format="pyarrow")):
            writer = writer or pq.ParquetWriter(unfinished, batch.schema)
            writer.write_table(batch)
        if writer is None:
            raise ValueError("there are no rows to calibrate.")
        writer.close()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return path


def _raised_here(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The batches; a worker's refusal without what Ray wraps it in."""
    ray = require_ray()
    try:
        yield from batches
    except ray.exceptions.RayTaskError as error:
        said = _said(str(error))
        if said is None:
            raise
        raise ValueError(said) from error


def _said(written: str) -> str | None:
    """The whole message of the worker's ValueError, which Ray hands over in a traceback only.

    Example:
        >>> print(_said(f"File x\\nValueError: mend\\nthis{CHAINED}UserCodeException: it failed"))
        mend
        this
    """
    for part in reversed(written.split(CHAINED)):
        _, found, message = f"\n{part}".partition("\nValueError: ")
        if found:
            return message.rstrip("\n")
    return None


def _unpacked(files: dict[str, bytes]) -> Path:
    """This machine's copy, made by whichever of its workers is first."""
    digest = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files)))
    folder = Path(tempfile.gettempdir()) / f"infalign-{digest.hexdigest()[:16]}"
    unfinished = Path(f"{folder}.{uuid.uuid4().hex[:8]}")
    if not folder.exists():
        unfinished.mkdir(mode=0o700)
        for name, data in files.items():
            (unfinished / name).write_bytes(data)
        with contextlib.suppress(OSError):  # another worker was faster, with the same bytes
            os.replace(unfinished, folder)
    altered = [name for name, data in files.items() if (folder / name).read_bytes() != data]
    if altered:
        raise ValueError(f"{folder} was altered ({', '.join(altered)}). Delete it.")
    return folder
