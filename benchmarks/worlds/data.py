"""Real data that is not part of this repository: where it is, and how it reads.

Two files in the folder that the environment variable INFALIGN_DATA names, or in `../shared/data`
beside the clone. Where they are absent a benchmark skips what needs them and says so.
"""

import contextlib
import dataclasses
import functools
import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

__all__ = [
    "AlpacaEval",
    "MissingData",
    "Pair",
    "alpaca_eval",
    "data_file",
    "harmless_pairs",
    "has_data",
]

ANSWERS = "alpaca_eval.parquet"
HARMLESS = "hh_harmless_test.jsonl.gz"
NULL_MODEL = "NullModel"
"""Gives one constant answer that is made to fool the judge."""

_ASKED, _ANSWERED = "\n\nHuman:", "\n\nAssistant:"


class MissingData(FileNotFoundError):
    """A data file that is not there. The message is one line for the user."""


def data_file(name: str) -> Path:
    """Path of a data file.

    Raises:
        MissingData: it is not there; the message says where it was looked for.
    """
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("INFALIGN_DATA") or beside)
    path = folder / name
    if not path.is_file():
        raise MissingData(f"{path} is missing; set INFALIGN_DATA to the folder that has {name}.")
    return path


@contextlib.contextmanager
def _read_from(path: Path) -> Iterator[Path]:
    """Says which file it was when one cannot be read."""
    try:
        yield path
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as it should ({error}); fetch it again."
        ) from error


def has_data(*names: str) -> bool:
    """Whether these files are there; without names, both."""
    try:
        return bool([data_file(name) for name in names or (ANSWERS, HARMLESS)])
    except MissingData:
        return False


@dataclasses.dataclass(frozen=True)
class AlpacaEval:
    """AlpacaEval 2: one answer of each of M models to P instructions, judged by GPT-4-turbo.

    Reference: Length-Controlled AlpacaEval (arXiv:2404.04475)
    """

    instructions: tuple[str, ...]
    """P."""
    sources: tuple[str, ...]
    """P: helpful_base, koala, oasst, selfinstruct or vicuna."""
    models: tuple[str, ...]
    """M names, the order of columns."""
    responses: tuple[tuple[str, ...], ...]
    """P rows of M answers."""
    scores: Float[np.ndarray, "P M"]
    """Judged probability that the answer beats gpt4_1106_preview's. [0, 1]."""

    def select(self, rows: Sequence[int] | np.ndarray) -> "AlpacaEval":
        """Some of the instructions, in the order given."""
        return dataclasses.replace(
            self,
            instructions=tuple(self.instructions[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            responses=tuple(self.responses[row] for row in rows),
            scores=self.scores[rows],
        )

    def without(self, *models: str) -> "AlpacaEval":
        """The same without some of the models."""
        kept = [column for column, model in enumerate(self.models) if model not in models]
        return dataclasses.replace(
            self,
            models=tuple(self.models[column] for column in kept),
            responses=tuple(tuple(row[column] for column in kept) for row in self.responses),
            scores=self.scores[:, kept],
        )


@functools.cache
def alpaca_eval(null_model: bool = True) -> AlpacaEval:
    """58 answers to each of 797 instructions; 57 without `NullModel`'s constant one.

    Eight more of the 805 instructions lack the answer of a model or two and are left out.

    Raises:
        MissingData: the file is not there.
    """
    import pandas as pd

    if not null_model:
        return alpaca_eval().without(NULL_MODEL)
    with _read_from(data_file(ANSWERS)) as path:
        table = pd.read_parquet(path).sort_values(["prompt_id", "model"])
    answers = table.groupby("prompt_id")["model"].transform("size")
    table = table[answers == table["model"].nunique()]
    asked = table.drop_duplicates("prompt_id")
    models = tuple(sorted(table["model"].unique()))
    shape = (len(asked), len(models))
    texts = table["response"].to_numpy().reshape(shape)
    return AlpacaEval(
        tuple(asked["instruction"]),
        tuple(asked["source"]),
        models,
        tuple(tuple(map(str, row)) for row in texts),
        table["score"].to_numpy(dtype=np.float64).reshape(shape),
    )


@dataclasses.dataclass(frozen=True)
class Pair:
    """A dialogue with two last answers, one of which people prefer."""

    dialogue: tuple[tuple[str, str], ...]
    """(role, text) turns, `user` and `assistant`; the last one is the user's."""
    chosen: str
    """The less harmful answer, by people."""
    rejected: str
    """The other one."""


@functools.cache
def harmless_pairs() -> tuple[Pair, ...]:
    """The test split of HH-RLHF's harmless-base: 2,312 pairs less those that do not parse.

    Reference: Training a Helpful and Harmless Assistant with RLHF (arXiv:2204.05862)

    Raises:
        MissingData: the file is not there.
    """
    with (
        _read_from(data_file(HARMLESS)) as path,
        gzip.open(path, "rt", encoding="utf-8") as lines,
    ):
        pairs = [_pair(**json.loads(line)) for line in lines]
    return tuple(pair for pair in pairs if pair is not None)


def _pair(chosen: str, rejected: str) -> Pair | None:
    """None where the two dialogues differ before their last answers, or an answer is empty."""
    (before, better), (other, worse) = (
        (text.rpartition(_ANSWERED)[0], text.rpartition(_ANSWERED)[2].strip())
        for text in (chosen, rejected)
    )
    if before != other or not better or not worse:
        return None
    turns = []
    for part in before.split(_ASKED)[1:]:
        asked, answered, answer = part.partition(_ANSWERED)
        turns.append(("user", asked.strip()))
        if answered:
            turns.append(("assistant", answer.strip()))
    if not turns or turns[-1][0] != "user":
        return None
    return Pair(tuple(turns), better, worse)
