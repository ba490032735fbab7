"""Corrupted reward heads for AlpacaEval's answers: labels flipped at fitting, weights disturbed.

The head that is right is one on style, fitted to clear preferences of the judge on instructions of
which none is in the world (:mod:`benchmarks.worlds.answers`); the corrupted ones differ from it in
nothing else.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float

from benchmarks.arena.runs import FOLDER
from benchmarks.arena.world import World
from benchmarks.hacking.cases import Case
from benchmarks.worlds.answers import PAIRS, parts, preferred
from benchmarks.worlds.biased import Bias
from benchmarks.worlds.data import NULL_MODEL, alpaca_eval
from benchmarks.worlds.heads import Pairs, fit_pairs
from benchmarks.worlds.kept import once
from benchmarks.worlds.style import style
from infalign.rewards.heads import LinearHead

__all__ = ["FLIPPED", "WEIGHTS", "Overrated", "corrupted", "disturbed", "flipped"]

FLIPPED, WEIGHTS = 0.4, 1.0
"""Share of pairs turned round; norm of the weights' noise, in that of the weights themselves."""
REPLICATES = 4
"""Random corruptions of either kind."""
PENALTY = 1e-3


def flipped(pairs: Pairs, share: float, rng: np.random.Generator) -> Pairs:
    """The same pairs, some of them the wrong way round.

    Example:
        >>> one = Pairs(np.ones((1, 1)), np.zeros((1, 1)), np.arange(1))
        >>> float(flipped(one, 1.0, np.random.default_rng(0)).better[0, 0])
        0.0
    """
    wrong = (rng.random(len(pairs.groups)) < share)[:, None]
    better = np.where(wrong, pairs.worse, pairs.better)
    return Pairs(better, np.where(wrong, pairs.better, pairs.worse), pairs.groups)


def disturbed(
    head: LinearHead, features: Float[np.ndarray, "P C D"], size: float, rng: np.random.Generator
) -> LinearHead:
    """The head with noise on its weights, in units of each feature's spread within a prompt."""
    spread = np.sqrt(((features - features.mean(1, keepdims=True)) ** 2).mean((0, 1))) + 1e-12
    weights = np.asarray(head.weights, float)
    noise = rng.standard_normal(len(weights))
    noise *= size * np.linalg.norm(weights * spread) / np.linalg.norm(noise)
    return LinearHead(weights + noise / spread, head.intercept)


@final
class Overrated(Bias):
    """The responses of each prompt that the training reward raises most above the intended one.

    By standardised difference; up to `share` of the responses, at least one. Adds nothing: the head
    erred by itself.
    """

    name = "overrated"

    def __init__(self, share: float = 0.1) -> None:
        self.share = share

    def bonus(self, world):
        return np.zeros(world.law.shape)

    def exploits(self, world):
        wrong, right = (_standard(world.judges[name]) for name in ("training", "intended"))
        order = np.argsort(np.argsort(-(wrong - right), axis=1, kind="stable"), axis=1)
        return order < max(1, int(self.share * order.shape[1]))


def corrupted(world: World) -> dict[str, list[Case]]:
    """`answers` with each kind of corrupted head to train on, several times.

    `honest head` is the same fit without corruption, the judge `intended` of the others.
    """
    rewards, kept = _rewards(), {}
    about = f"{world.about}; a corrupted head trains"
    clean = {**world.judges, "training": rewards["honest"]}
    base = dataclasses.replace(world, name=f"{world.name}-head", judges=clean)
    honest = base.with_training(f"{world.name}-honest-head", rewards["honest"], about)
    kept["honest head"] = [Case("honest head", honest, None)]
    for kind in ("flipped", "disturbed"):
        worlds = [
            base.with_training(f"{world.name}-{kind}-{number}", rewards[f"{kind}{number}"], about)
            for number in range(REPLICATES)
        ]
        kept[f"{kind} head"] = [Case(f"{kind} head", one, Overrated()) for one in worlds]
    return kept


def _standard(rewards: np.ndarray) -> np.ndarray:
    centred = rewards - rewards.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean())


def _rewards() -> dict[str, np.ndarray]:
    """What the heads say of the world's answers; found once and kept."""
    return once(FOLDER / "worlds" / "answers-corrupted-heads-1.npz", _fitted)


def _fitted() -> dict[str, np.ndarray]:
    found = alpaca_eval().without(NULL_MODEL)
    here, fitting, _ = parts(alpaca_eval())
    shown, other = found.select(here), found.select(fitting)
    features = style(shown.instructions, shown.responses)
    rng = np.random.default_rng(0)
    others = style(other.instructions, other.responses)
    pairs = preferred(others, other.scores, fitting, PAIRS, rng)
    head = fit_pairs(pairs, [PENALTY])
    made = {"honest": head(features)}
    for number in range(REPLICATES):
        made[f"flipped{number}"] = fit_pairs(flipped(pairs, FLIPPED, rng), [PENALTY])(features)
        made[f"disturbed{number}"] = disturbed(head, features, WEIGHTS, rng)(features)
    return made
