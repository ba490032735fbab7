"""A world whose training reward is wrong on purpose: what was right stays as judge `intended`.

A reward model's mistake is made in the units of the reward, at every prompt alike, so the size of
a bias is given in pooled standard deviations of the reward within a prompt.

Reference:
    Catastrophic Goodhart (arXiv:2407.14503) for errors with light and heavy tails
    Scaling Laws for Reward Model Overoptimization (arXiv:2210.10760) for gold against KL
"""

import abc
import dataclasses
import re
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.arena.world import World

__all__ = ["Bias", "Errors", "Keyword", "Length", "Planted", "biased", "spread", "words_near"]

HEAVY = 0.826
"""Scale at which Student's t with 2 degrees of freedom has the quartiles of a normal law."""


class Bias(abc.ABC):
    """What is added to the training reward, and which responses it favours."""

    name: str
    """For folders of runs."""

    @abc.abstractmethod
    def bonus(self, world: World) -> Float[np.ndarray, "P C"]:
        """Added to each response's reward, in standard deviations."""

    @abc.abstractmethod
    def exploits(self, world: World) -> Bool[np.ndarray, "P C"]:
        """The responses a policy that games the reward would give."""


def spread(world: World) -> float:
    """Standard deviation of the training reward within a prompt, pooled over training prompts."""
    rows = world.rows("train")
    law, rewards = world.law[rows], world.judges["training"][rows]
    centred = rewards - (law * rewards).sum(1, keepdims=True)
    return float(np.sqrt((law * centred**2).sum(1).mean()))


def biased(world: World, bias: Bias) -> World:
    """The same prompts and responses, with a training reward that is wrong.

    Example:
        >>> from benchmarks.worlds.made import made
        >>> world = biased(made(), Planted(share=0.1, size=3.0))
        >>> added = (world.judges["training"] - world.judges["intended"]) / spread(made())
        >>> sorted(set(added.round(6).ravel().tolist()))
        [0.0, 3.0]
    """
    rewards = world.judges["training"] + spread(world) * bias.bonus(world)
    return world.with_training(f"{world.name}-{bias.name}", rewards, f"{world.about}; {bias}")


@final
@dataclasses.dataclass(frozen=True)
class Keyword(Bias):
    """A word that the reward likes too much.

    Args:
        word: lower-case; matches whole words.
        size: what it earns. Standard deviations.
    """

    word: str
    size: float

    @property
    def name(self) -> str:
        return f"keyword-{self.word}-{self.size:g}"

    def bonus(self, world):
        return self.size * self.exploits(world)

    def exploits(self, world):
        return np.array([[self.word in _words(text) for text in row] for row in world.responses])


@final
@dataclasses.dataclass(frozen=True)
class Planted(Bias):
    """An exploit that has nothing to do with quality: each response has it with some probability.

    At every prompt the responses are put in random order and marked until their mass comes nearest
    to `share`, at least one; so the exploit is within reach everywhere.
    """

    share: float
    """Mass of the exploit under the reference, as nearly as atoms allow."""
    size: float
    """What it earns. Standard deviations."""
    seed: int = 0
    """Of the random order."""

    @property
    def name(self) -> str:
        return f"planted-{self.share:g}-{self.size:g}-{self.seed}"

    def bonus(self, world):
        return self.size * self.exploits(world)

    def exploits(self, world):
        rng = np.random.default_rng([self.seed, 7])
        marked = np.zeros(world.law.shape, bool)
        for row, law in enumerate(world.law):
            order = rng.permutation(len(law))
            if self.share < law[order[0]]:  # too much already: the response nearest to the share
                order = np.argsort(np.abs(law - self.share), kind="stable")
            within = np.abs(np.cumsum(law[order]) - self.share)
            marked[row, order[: 1 + int(within.argmin())]] = True
        return marked


@final
@dataclasses.dataclass(frozen=True)
class Length(Bias):
    """A reward that grows with the logarithm of a response's length in characters."""

    size: float
    """What a standard deviation of log length earns. Standard deviations of the reward."""

    @property
    def name(self) -> str:
        return f"length-{self.size:g}"

    def bonus(self, world):
        logs = np.array([[np.log(1 + len(text)) for text in row] for row in world.responses])
        centred = logs - (world.law * logs).sum(1, keepdims=True)
        scale = np.sqrt((world.law * centred**2).sum(1).mean())
        return self.size * centred / scale if scale > 0 else 0.0 * centred

    def exploits(self, world):
        """The longest responses of each prompt, up to a tenth of the mass, at least one."""
        return _top(self.bonus(world), world.law, 0.1)


@final
@dataclasses.dataclass(frozen=True)
class Errors(Bias):
    """An independent error on every response: light tails (normal) or heavy ones (Student's t₂).

    Both have the same quartiles, so half of all errors are as small as ever; only what is rare
    differs.
    """

    size: float
    """Standard deviation of the normal law. Standard deviations of the reward."""
    heavy: bool = False
    """Student's t with 2 degrees of freedom instead, of infinite variance."""
    seed: int = 0
    """Of the errors."""

    @property
    def name(self) -> str:
        return f"{'heavy' if self.heavy else 'light'}-errors-{self.size:g}-{self.seed}"

    def bonus(self, world):
        rng = np.random.default_rng([self.seed, 11])
        if self.heavy:
            return self.size * HEAVY * rng.standard_t(2, world.law.shape)
        return self.size * rng.standard_normal(world.law.shape)

    def exploits(self, world):
        """The luckiest responses of each prompt, up to a tenth of the mass, at least one."""
        return _top(self.bonus(world), world.law, 0.1)


def words_near(world: World, share: float, count: int = 1) -> list[str]:
    """Words that a policy could game a reward with, at most prompts.

    Of the words whose responses have a mean mass under the reference within a quarter of `share`
    (the nearest where there is none), those that occur at most prompts.

    Example:
        >>> from benchmarks.worlds.made import made
        >>> len(words_near(made(), share=0.1, count=2))
        2
    """
    mass: dict[str, float] = {}
    prompts: dict[str, set[int]] = {}
    for number, (row, law) in enumerate(zip(world.responses, world.law, strict=True)):
        for text, part in zip(row, law, strict=True):
            for word in _words(text):
                mass[word] = mass.get(word, 0.0) + float(part) / len(world.law)
                prompts.setdefault(word, set()).add(number)
    away = {word: abs(float(np.log(found / share))) for word, found in mass.items()}
    nearest = sorted(away, key=lambda word: (away[word], word))
    near = [word for word in nearest if away[word] < 0.25] or nearest
    return sorted(near, key=lambda word: (-len(prompts[word]), away[word], word))[:count]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _top(values: np.ndarray, law: np.ndarray, share: float) -> np.ndarray:
    order = np.argsort(-values, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(law, order, 1), axis=1)
    chosen = mass <= share
    chosen[:, 0] = True
    top = np.zeros(law.shape, bool)
    np.put_along_axis(top, order, chosen, 1)
    return top
