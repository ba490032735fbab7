"""An answer as a row of a file: what was asked, answered, chosen among and paid."""

import json
import math
from typing import Any

import pyarrow as pa

from infalign.decoding.text_procedure import Budget, Decoded
from infalign.prompts import Prompt

__all__ = ["SCHEMA", "as_json", "record_of"]

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("reward", pa.float64()),
        ("quantile", pa.float64()),
        ("index", pa.int64()),
        ("candidates", pa.list_(pa.string())),
        ("rewards", pa.list_(pa.float64())),
        ("quantiles", pa.list_(pa.float64())),
        ("responses", pa.int64()),
        ("tokens", pa.int64()),
        ("details", pa.string()),
    ]
)
"""Columns of a file of answers; null where there is no number, `details` is JSON."""


def record_of(prompt: Prompt, decoded: Decoded, further: Budget | None = None) -> dict[str, Any]:
    """One row.

    Args:
        prompt: what was asked.
        decoded: the answer to it.
        further: what was sampled for this answer beside it, for its calibration.

    Example:
        >>> from infalign.protocols import Response
        >>> candidates = Response("yes", (7, 2)), Response("no", (3,))
        >>> decoded = Decoded("a", "yes", 0, candidates, rewards=(1.0, float("nan")))
        >>> row = record_of(Prompt("a", "Well?"), decoded)
        >>> row["answer"], row["reward"], row["rewards"], row["responses"], row["tokens"]
        ('yes', 1.0, [1.0, None], 2, 3)
    """
    spent, more = decoded.budget, further or Budget(0, 0)
    quantiles = decoded.quantiles
    return {
        "prompt_id": decoded.prompt_id,
        "prompt": prompt.text,
        "answer": decoded.text,
        "reward": _number(decoded.rewards[decoded.index]),
        "quantile": None if quantiles is None else _number(quantiles[decoded.index]),
        "index": decoded.index,
        "candidates": [response.text for response in decoded.candidates],
        "rewards": [_number(value) for value in decoded.rewards],
        "quantiles": None if quantiles is None else [_number(value) for value in quantiles],
        "responses": round(spent.responses + more.responses),
        "tokens": round(spent.tokens + more.tokens),
        "details": as_json(dict(decoded.details)),
    }


def as_json(value: Any) -> str:
    """JSON in one line; numpy's numbers are numbers, and no number is null.

    Example:
        >>> import numpy as np
        >>> as_json({"votes": np.array([2, 1]), "acceptance": float("nan")})
        '{"votes": [2, 1], "acceptance": null}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _number(value) if isinstance(value, float) else value


def _number(value: float) -> float | None:
    """JSON and tables have no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None
