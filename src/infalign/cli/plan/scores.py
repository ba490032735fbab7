"""Stored double scores: two rewards of the same responses, and how far they agree."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from infalign.quantile.agreement import Agreement

__all__ = ["agreement_of"]


def agreement_of(path: Path, names: str | None) -> "Agreement":
    """The rank correlation within prompts of the two rewards in a store or a file.

    Args:
        path: an experiment's folder, a store of rollouts, or a CSV or Parquet file.
        names: "proxy,gold": which two rewards.
    """
    from infalign.quantile.agreement import estimate_agreement

    table = _table(path)
    columns = _columns(table, path, names)
    ids = np.asarray(table["prompt_id"].to_pylist())
    proxy, gold = (_floats(table, name, path) for name in columns)
    scored = np.isfinite(proxy) & np.isfinite(gold)
    ids, proxy, gold = ids[scored], proxy[scored], gold[scored]
    if not len(ids):
        raise ValueError(f"{path} has no response scored by both {columns[0]} and {columns[1]}.")
    _, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    k = int(counts.min())
    if k < 2:
        raise ValueError(
            f"{path}: a prompt has {k} response scored by both rewards; at least 2 are needed, "
            "because they are compared within a prompt."
        )
    order = np.argsort(place, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen = order[(starts[:, None] + np.arange(k)).ravel()]
    return estimate_agreement(proxy[chosen].reshape(-1, k), gold[chosen].reshape(-1, k))


def _table(path: Path) -> "pa.Table":
    if path.is_dir():
        return _stored(path)
    if not path.exists():
        raise FileNotFoundError(
            f"--scores {path}: there is no such file or folder. Give an experiment's output "
            "folder, a store of rollouts, or a CSV or Parquet file."
        )
    if path.suffix == ".csv":
        from pyarrow import csv

        return csv.read_csv(path)
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path)
    raise ValueError(f"--scores {path}: a .csv or .parquet file or a folder is needed.")


def _stored(path: Path) -> "pa.Table":
    from infalign.rollouts import RolloutStore

    # Of an experiment the reference's judged samples come first: all judges have scored those.
    for folder in (path, path / "judged" / "reference", path / "rollouts"):
        if (folder / "store.json").exists():
            store = RolloutStore.existing(folder)
            if len(store.reward_names) > 1 or folder != path / "judged" / "reference":
                return store.read()
    raise ValueError(
        f"--scores {path}: neither this folder nor its rollouts/ is a store of rollouts. An "
        "experiment has one after `infalign reward`."
    )


def _columns(table: "pa.Table", path: Path, names: str | None) -> tuple[str, str]:
    if names is not None:
        wanted = [name.strip() for name in names.split(",")]
    else:
        known = {"prompt_id", "prompt", "sample", "text", "token_ids", "log_prob", "finish_reason"}
        wanted = [name for name in table.column_names if name not in known]
        wanted = ["proxy", "gold"] if {"proxy", "gold"} <= set(wanted) else wanted
    missing = [n for n in ("prompt_id", *wanted) if n not in table.column_names]
    if len(wanted) != 2 or missing:
        raise ValueError(
            f"--scores {path} has the columns {', '.join(table.column_names)}; prompt_id and two "
            "rewards are needed. Say which: --score-columns PROXY,GOLD."
        )
    return wanted[0], wanted[1]


def _floats(table: "pa.Table", name: str, path: Path) -> np.ndarray:
    try:
        values = table[name].to_pylist()
        return np.array([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        raise ValueError(f"--scores {path}: column {name} does not hold numbers.") from None
