"""A procedure's wishes served one by one, for one request, while others are served beside it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, final

import numpy as np

from infalign.decoding import Decoded, Draw, Scored, TextProcedure
from infalign.decoding.running import judged
from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.calibration import EmpiricalCalibration

__all__ = ["Unusable", "decoded", "reference", "scored"]

DrawFor = Callable[[Draw], Awaitable[list[list[Response]]]]
ScoreFor = Callable[[str, tuple[str, ...]], Awaitable[np.ndarray]]


@final
class Unusable(Exception):
    """The procedure cannot go on from what the reward gave.

    Args:
        why: as the procedure says it.
        rewards: the last ones; None where there were none.
    """

    def __init__(self, why: str, rewards: np.ndarray | None) -> None:
        super().__init__(why)
        wrong = [] if rewards is None else rewards[~np.isfinite(rewards)]
        self.what = f"it gave {wrong[0]} for a candidate" if len(wrong) else why
        """For the log, without anybody's words."""


async def reference(
    prompt: Prompt, k: int, draw: DrawFor, score: ScoreFor
) -> EmpiricalCalibration | None:
    """The calibration of one prompt, from k fresh draws; None for k = 0."""
    if not k:
        return None
    (responses,) = await draw(Draw(k))
    rewards = await score(prompt.text, tuple(response.text for response in responses))
    return _stepped(lambda: EmpiricalCalibration((prompt.id,), rewards[None]), rewards)


async def decoded(
    procedure: TextProcedure,
    prompt: Prompt,
    draw: DrawFor,
    score: ScoreFor,
    calibration: EmpiricalCalibration | None,
    rng: np.random.Generator,
) -> Decoded:
    """The procedure's answer to one prompt.

    Args:
        procedure: whose generator is driven.
        prompt: what to answer.
        draw: serves draws.
        score: rewards of texts.
        calibration: of this prompt; None where the procedure needs none.
        rng: of the procedure's own choices.

    Raises:
        Unusable: the procedure refuses what the reward gave.
        Refused: a draw or a score cannot be had.
    """
    steps, reply = procedure.steps(prompt, rng), None
    rewards: np.ndarray | None = None
    try:
        while True:
            try:
                wish: Any = _stepped(lambda answer=reply: steps.send(answer), rewards)
            except StopIteration as end:
                return end.value
            if isinstance(wish, Draw):
                reply = await draw(wish)
            else:
                rewards = await score(prompt.text, wish.texts)
                reply = scored(calibration, prompt, rewards)
            await asyncio.sleep(0)  # a chain of many steps lets others have their turn
    finally:
        steps.close()


def scored(calibration: EmpiricalCalibration | None, prompt: Prompt, rewards: np.ndarray) -> Scored:
    """Rewards of K texts to one prompt, with their quantiles where there is a calibration."""
    (judgement,) = judged(calibration, [prompt.id], rewards[None])
    return judgement


def _stepped(step: Callable[[], Any], rewards: np.ndarray | None) -> Any:
    """What the library refuses of a reward's numbers, such as NaN, is no fault of the client's."""
    try:
        return step()
    except ValueError as error:
        raise Unusable(str(error), rewards) from error
