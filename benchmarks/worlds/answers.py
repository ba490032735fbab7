"""AlpacaEval: real answers of 57 models to real instructions, as a table.

Three judges. `training` and `gold` are heads fitted on the judge's preferences among answers to
*other* instructions, each on instructions of its own, and on other features. `judge` is what GPT-4
said of these very answers.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.arena.runs import FOLDER
from benchmarks.arena.world import Schedule, World
from benchmarks.worlds.data import NULL_MODEL, AlpacaEval, alpaca_eval
from benchmarks.worlds.heads import Pairs, fit_pairs, held_out
from benchmarks.worlds.kept import once
from benchmarks.worlds.style import style, words
from infalign.policies import SoftmaxTable, TabularPolicy
from infalign.prompts import Prompt
from infalign.rewards.heads import LinearHead

__all__ = ["answers", "judged_answers", "parts", "preferred", "tables"]

PROMPTS = 256
"""Of the world: all of helpful_base, then others."""
CLEAR = 0.1
"""Scores that differ by less are no preference."""
PAIRS = 36
"""Drawn from the answers to one instruction."""
_ABOUT = "AlpacaEval: {p} instructions, {c} models' answers, uniform reference, a free table; "
_VERSION = 1
"""Of what is kept; raised when judges are made otherwise."""


def parts(found: AlpacaEval, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the world's instructions, of the training head's and of the gold head's."""
    order = np.random.default_rng(seed).permutation(len(found.instructions))
    helpful = np.array(found.sources)[order] == "helpful_base"
    order = np.concatenate([order[helpful], order[~helpful]])
    rest = order[PROMPTS:]
    return order[:PROMPTS], rest[::2], rest[1::2]


def preferred(
    features: np.ndarray, scores: np.ndarray, names: np.ndarray, each: int, rng: np.random.Generator
) -> Pairs:
    """Up to `each` clear preferences per prompt; features "P C D", scores "P C", names "P"."""
    better, worse, groups = [], [], []
    for row, score in enumerate(scores):
        above, below = np.nonzero(score[:, None] > score[None, :] + CLEAR)
        some = rng.permutation(len(above))[:each]
        better.append(features[row, above[some]])
        worse.append(features[row, below[some]])
        groups.append(np.full(len(some), names[row]))
    return Pairs(np.concatenate(better), np.concatenate(worse), np.concatenate(groups))


@functools.cache
def answers(
    k: int | None = None,
    source: Literal["helpful_base"] | None = None,
    null_model: bool = False,
) -> World:
    """The table world; see the module. `null_model` adds the answer that fools the judge.

    Args:
        k: rollouts per prompt that training gets; None: the law itself.
        source: `helpful_base` keeps those 129 instructions.
        null_model: whether the constant answer of AlpacaEval's NullModel is a 58th response.

    Raises:
        MissingData: AlpacaEval is not there.
    """
    found, judges, _ = _judged()
    rows = np.arange(PROMPTS)
    if source is not None:
        rows = np.array([row for row in rows if found.sources[row] == source])
    columns = [c for c, model in enumerate(found.models) if null_model or model != NULL_MODEL]
    name = "-".join(filter(None, ("answers", source, "null" if null_model else None)))
    return _world(
        name if k is None else f"{name}-k{k}",
        "reward: head on style, fitted to GPT-4's preferences elsewhere; gold: another head, on "
        "style and words, fitted elsewhere again; judge: GPT-4's own scores",
        [found.instructions[row] for row in rows],
        [[found.responses[row][column] for column in columns] for row in rows],
        {judge: rewards[np.ix_(rows, columns)] for judge, rewards in judges.items()},
        k,
    )


@functools.cache
def judged_answers(
    k: int | None = None,
    source: Literal["helpful_base"] | None = None,
    null_model: bool = False,
) -> World:
    """The same, trained on GPT-4's own scores: heavily skewed. Gold is the training head."""
    world = answers(k, source, null_model)
    about = world.about.split("reward:")[0] + "reward: GPT-4's own scores; gold: head on style"
    judges = {"training": world.judges["judge"], "gold": world.judges["training"]}
    name = world.name.replace("answers", "judged_answers")
    texts = [prompt.text for prompt in world.prompts]
    return _world(name, about, texts, world.responses, judges, k, complete=True)


def _world(
    name: str,
    about: str,
    texts: Sequence[str],
    responses: Sequence[Sequence[str]],
    judges: Mapping[str, np.ndarray],
    k: int | None,
    complete: bool = False,
) -> World:
    shape = judges["training"].shape
    law = np.full(shape, 1 / shape[1])
    listed = tuple(map(tuple, responses))
    table = TabularPolicy(tuple(texts), listed, law, name)
    return World(
        name=name,
        about=about if complete else _ABOUT.format(p=shape[0], c=shape[1]) + about,
        prompts=tuple(map(Prompt.from_text, texts)),
        trained=len(texts),
        responses=listed,
        law=law,
        judges=judges,
        policy=lambda seed: SoftmaxTable(table),
        schedule=Schedule(steps=600, learning_rate=0.1, prompts_per_step=None),
        k=k,
    )


def tables() -> dict[str, Any]:
    """What is known of the judges: pairs, accuracy on the world's pairs, correlations."""
    return _judged()[2]


@functools.cache
def _judged() -> tuple[AlpacaEval, dict[str, np.ndarray], dict[str, Any]]:
    """The world's part of AlpacaEval (58 models), its judges, and how good they are."""
    everything = alpaca_eval()
    rows = parts(everything)
    found = everything.select(rows[0])
    path = FOLDER / "worlds" / f"answers-{_VERSION}.npz"
    kept = once(path, lambda: _fitted(everything, rows))
    judges = {judge: kept[judge] for judge in ("training", "gold")}
    record = json.loads(str(kept["record"]))
    return found, judges | {"judge": found.scores}, record


def _fitted(everything: AlpacaEval, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    real = [column for column, model in enumerate(everything.models) if model != NULL_MODEL]
    world = everything.select(rows[0])
    counted = style(world.instructions, world.responses)
    judges, record = {"log_length": counted[..., 0]}, {}
    for part, judge, penalties in ((1, "training", (3e-4, 1e-3, 3e-3)), (2, "gold", (0.1, 0.3))):
        fitting = everything.select(rows[part])
        drawing = np.random.default_rng([0, part])
        features = _features(style(fitting.instructions, fitting.responses), fitting, judge)
        scores = fitting.scores[:, real]
        pairs = preferred(features[:, real], scores, rows[part], PAIRS, drawing)
        head = fit_pairs(pairs, penalties)
        here = _features(counted, world, judge)
        unseen = preferred(here[:, real], world.scores[:, real], rows[0], 100, drawing)
        judges[judge] = head(here)
        record[judge] = head.record | {"world": vars(held_out(head, unseen))}
        length = LinearHead(np.eye(1, here.shape[-1])[0], 0.0)
        record["log_length"] = {"world": vars(held_out(length, unseen))}
    seen = judges | {"judge": world.scores}
    record["correlations"] = _correlations({name: seen[name][:, real] for name in seen})
    return judges | {"record": np.array(json.dumps(record))}


def _features(counted: np.ndarray, found: AlpacaEval, judge: str) -> np.ndarray:
    if judge == "training":
        return counted
    return np.concatenate([counted, words(found.responses)], axis=-1)


def _correlations(seen: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean over prompts of the Spearman correlation of two judges."""
    from scipy.stats import rankdata

    ranks = {name: rankdata(values, axis=1) for name, values in seen.items()}
    names = list(ranks)
    found = {}
    for first, one in enumerate(names):
        for other in names[first + 1 :]:
            pairs = zip(ranks[one], ranks[other], strict=True)
            values = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
            found[f"{one}, {other}"] = round(float(np.nanmean(values)), 3)
    return found
