"""From a request to its answer: a place, the draws, the reward, the procedure, a deadline."""

import asyncio
import dataclasses
from typing import final

import numpy as np

from infalign.decoding import Decoded, TextProcedure
from infalign.protocols import Reward
from infalign.serving.answers import Found
from infalign.serving.drawing import Drawing
from infalign.serving.driving import Unusable, decoded, reference, scored
from infalign.serving.gate import Gate
from infalign.serving.metrics import Metrics
from infalign.serving.refusals import Refused, refused_request
from infalign.serving.requests import Asked
from infalign.serving.scoring import Scorer
from infalign.serving.settings import Serving
from infalign.serving.upstream import Upstream

__all__ = ["Finder"]


@final
class Finder:
    """All that finding answers needs, shared by all requests.

    Args:
        serving: the settings.
        reward: None only for procedures that never ask for one.

    Raises:
        ValueError: the procedure needs a reward and none came.
    """

    def __init__(self, serving: Serving, reward: Reward | None) -> None:
        procedure = serving.made()
        if reward is None and (procedure.needs_reward or serving.calibrate):
            raise ValueError(
                f"{procedure.name} needs a reward to choose by and none came; give one (--reward)."
            )
        self.serving, self.metrics = serving, Metrics()
        limits = serving.limits
        self.gate = Gate(limits.concurrency, limits.queue, self.metrics)
        self.upstream = Upstream(serving.upstream, self.metrics)
        self.scorer = None if reward is None else Scorer(reward, limits.reward_texts, self.metrics)

    async def __call__(self, asked: Asked) -> Found:
        """The answer to a request.

        Raises:
            Refused: why there is none.
        """
        seconds = self.serving.limits.seconds
        try:
            async with asyncio.timeout(seconds), self.gate.place():
                return await self._found(asked)
        except TimeoutError:
            raise Refused(
                504, f"no answer was found within {seconds:g} s.", "timeout_error"
            ) from None

    async def _found(self, asked: Asked) -> Found:
        try:
            procedure = self.serving.made(asked.n)
        except ValueError as error:
            raise refused_request(str(error), "n") from None
        rng = np.random.default_rng(asked.seed)
        own, draws = rng.spawn(2)
        continues = procedure.needs_beginnings
        drawing = Drawing(self.upstream, self.serving, asked, continues, draws, self.metrics)
        try:
            answer, is_scored = await self._answered(procedure, asked, drawing, own)
        except Unusable as error:
            if self.scorer is None:
                raise  # a defect: nothing was scored
            raise self.scorer.refused(error.what) from error
        chosen = answer.candidates[answer.index] if answer.candidates else None
        raw = drawing.raw(chosen) if chosen is not None and chosen.text == answer.text else None
        name = self.scorer.name if self.scorer is not None and is_scored else None
        model = drawing.model or asked.body["model"]
        return Found(asked, answer, procedure.name, name, raw, model, drawing.usage)

    async def _answered(
        self, procedure: TextProcedure, asked: Asked, drawing: Drawing, rng: np.random.Generator
    ) -> tuple[Decoded, bool]:
        """The answer, and whether its reward is known."""
        prompt = asked.prompt
        calibration = await reference(prompt, self.serving.calibrate, drawing, self._score)
        answer = await decoded(procedure, prompt, drawing, self._score, calibration, rng)
        if procedure.needs_reward or calibration is None:
            return answer, procedure.needs_reward
        # The draws are paid for, so what was chosen without a reward is compared with them.
        texts = tuple(response.text for response in answer.candidates)
        judged = scored(calibration, prompt, await self._score(prompt.text, texts))
        numbers = {"rewards": judged.rewards, "quantiles": judged.quantiles}
        told = {name: tuple(map(float, row)) for name, row in numbers.items()}
        return dataclasses.replace(answer, **told), True

    async def _score(self, prompt: str, texts: tuple[str, ...]) -> np.ndarray:
        if self.scorer is None:
            raise Refused(500, "the procedure asks for a reward and this server has none.")
        return await self.scorer(prompt, texts)
