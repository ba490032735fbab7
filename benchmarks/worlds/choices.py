"""Rewards from people's choices between answers: HH-RLHF's harmless pairs, in three parts.

Some dialogues become prompts, the rest fit a training head and a gold head, half each, and no first
question is in two parts. Heads read an answer's first tokens only, as many as the answers that they
are going to rate have: what an essay says at its end is no reward for twenty tokens.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from benchmarks.arena.runs import FOLDER
from benchmarks.worlds.data import Pair, harmless_pairs
from benchmarks.worlds.heads import Pairs, fit_pairs, held_out
from benchmarks.worlds.kept import once
from benchmarks.worlds.style import style
from infalign.rewards.heads import LinearHead
from infalign.rewards.scoring import PairScores, Progress

__all__ = ["ASKED", "ChoiceReward", "Parts", "features", "parts", "record", "reward"]

ASKED = 128
"""Dialogues that no head is fitted on: prompts of worlds."""
_SHORT = 400
"""Characters of such a dialogue; longer ones only fit heads."""
_PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Parts:
    """Pairs in three parts that share no first question."""

    asked: tuple[Pair, ...]
    """Their dialogues are prompts; their answers are not used."""
    training: tuple[Pair, ...]
    """Fit the training head."""
    gold: tuple[Pair, ...]
    """Fit the gold head."""


def parts(pairs: Sequence[Pair], prompts: int = ASKED) -> Parts:
    """Short dialogues for prompts, the rest halved; by content, not by place in the file."""
    families: dict[str, list[Pair]] = {}
    for pair in pairs:
        families.setdefault(pair.dialogue[0][1], []).append(pair)
    order = sorted(families, key=lambda question: hashlib.sha256(question.encode()).digest())
    asked = [question for question in order if _is_short(families[question][0])][:prompts]
    rest = [question for question in order if question not in set(asked)]
    halves = ([p for question in rest[half::2] for p in families[question]] for half in (0, 1))
    return Parts(tuple(families[question][0] for question in asked), *map(tuple, halves))


class ChoiceReward:
    """How likely people are to prefer an answer as the less harmful, in logits; of answers alone.

    Args:
        name: column in tables.
        head: features to rewards.
    """

    def __init__(self, name: str, head: LinearHead) -> None:
        self.name, self.head = name, head
        self._scores = PairScores(lambda pairs: self.rate([text for _, text in pairs]), batch=256)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "P K"]:
        """Rewards of K responses to each of P prompts; the prompt is not read."""
        return self._scores([""] * len(prompts), responses, progress)

    def rate(self, texts: Sequence[str]) -> Float[np.ndarray, "N"]:
        """Rewards of plain texts."""
        return self.head(features(texts))


def features(texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
    """Frozen MiniLM and what can be counted."""
    stripped = [text.strip() for text in texts]
    counted = style([""], [stripped])[0]
    return np.concatenate([_encoder()(stripped), counted], axis=1)


@functools.cache
def reward(judge: Literal["training", "gold"], longest: int = 20) -> ChoiceReward:
    """A reward for answers of so many tokens; fitted once and kept.

    Raises:
        MissingData: the pairs are not there.
    """
    return ChoiceReward(f"choices-{judge}", LinearHead(_kept(longest)[judge], 0.0))


def record(longest: int = 20) -> dict[str, Any]:
    """Pairs, penalties and accuracy of both heads, each on the half that the other was fitted on;
    what log length alone would get."""
    return json.loads(str(_kept(longest)["record"]))


@functools.cache
def _kept(longest: int) -> dict[str, np.ndarray]:
    return once(FOLDER / "worlds" / f"choices-{longest}.npz", lambda: _fitted(longest))


def _fitted(longest: int) -> dict[str, np.ndarray]:
    found = parts(harmless_pairs())
    halves = {"training": _read(found.training, longest), "gold": _read(found.gold, longest)}
    heads = {judge: fit_pairs(half, _PENALTIES) for judge, half in halves.items()}
    length = LinearHead(np.eye(1, heads["gold"].weights.size, _LOG_LENGTH)[0], 0.0)
    learnt = {
        judge: head.record
        | {
            "other_half": vars(held_out(head, halves[other])),
            "log_length": vars(held_out(length, halves[other])),
        }
        for (judge, head), other in zip(heads.items(), ("gold", "training"), strict=True)
    }
    weights = {judge: head.weights for judge, head in heads.items()}
    return weights | {"record": np.array(json.dumps(learnt))}


_LOG_LENGTH = 384
"""Where the counted features begin."""


def _read(pairs: Sequence[Pair], longest: int) -> Pairs:
    """Features of the first tokens of both answers; a group is a first question."""
    better = features([_beginning(pair.chosen, longest) for pair in pairs])
    worse = features([_beginning(pair.rejected, longest) for pair in pairs])
    questions = [pair.dialogue[0][1] for pair in pairs]
    return Pairs(better, worse, np.unique(questions, return_inverse=True)[1])


def _is_short(pair: Pair) -> bool:
    return sum(len(text) for _, text in pair.dialogue) <= _SHORT


def _beginning(text: str, longest: int) -> str:
    tokenizer = _tokenizer()
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:longest])


@functools.cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from infalign.assets import asset_folder

    return AutoTokenizer.from_pretrained(str(asset_folder("smollm2-135m-instruct")))


@functools.cache
def _encoder() -> Any:
    from infalign.assets import asset_folder
    from infalign.rewards.encoders import MiniLM

    return MiniLM(asset_folder("all-minilm-l6-v2"))
