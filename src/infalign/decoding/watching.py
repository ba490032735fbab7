"""A procedure with somebody looking on: the same in all it asks and answers."""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from infalign.decoding.text_procedure import Budget, Draw, Steps, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler

__all__ = ["Watched", "Watcher"]

Watcher = Callable[[Draw, list[list[Response]]], None]
"""Told of each draw, and of what it gave."""


class Watched(TextProcedure):
    """The procedure in `procedure`, whose draws are told to a watcher."""

    procedure: TextProcedure
    """Answers."""

    @abstractmethod
    def watcher(self) -> Watcher:
        """Who is told of the draws for one answer; asked when the answer is begun."""

    @property
    def name(self) -> str:
        return self.procedure.name

    @property
    def most(self) -> int:
        return self.procedure.most

    def most_within(self, longest: int) -> Budget:
        return self.procedure.most_within(longest)

    @property
    def needs_reward(self) -> bool:
        return self.procedure.needs_reward

    @property
    def needs_calibration(self) -> bool:
        return self.procedure.needs_calibration

    @property
    def needs_beginnings(self) -> bool:
        return self.procedure.needs_beginnings

    @property
    def needs_gaps(self) -> bool:
        return self.procedure.needs_gaps

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        self.procedure.check(policy, reward)

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        return _followed(self.procedure.steps(prompt, rng), self.watcher())


def _followed(steps: Steps, told: Watcher) -> Steps:
    reply = None
    while True:
        try:
            wish = steps.send(reply)
        except StopIteration as end:
            return end.value
        reply = yield wish
        if isinstance(wish, Draw):
            told(wish, reply)
