"""A procedure's wishes served one by one, for one request, while others are served beside it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from infalign.decoding import Decoded, Draw, Scored, TextProcedure
from infalign.decoding.running import judged
from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.serving.refusals import Refused

__all__ = ["decoded", "reference"]

DrawFor = Callable[[Draw], Awaitable[list[list[Response]]]]
ScoreFor = Callable[[str, tuple[str, ...]], Awaitable[np.ndarray]]


async def reference(
    prompt: Prompt, k: int, draw: DrawFor, score: ScoreFor
) -> EmpiricalCalibration | None:
    """The calibration of one prompt, from k fresh draws; None for k = 0."""
    if not k:
        return None
    (responses,) = await draw(Draw(k))
    rewards = await score(prompt.text, tuple(response.text for response in responses))
    return _refusing(lambda: EmpiricalCalibration((prompt.id,), rewards[None]))


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
        Refused: a draw or a score cannot be had, or the procedure refuses what came.
    """
    steps, reply = procedure.steps(prompt, rng), None
    try:
        while True:
            try:
                wish: Any = _refusing(lambda answer=reply: steps.send(answer))
            except StopIteration as end:
                return end.value
            if isinstance(wish, Draw):
                reply = await draw(wish)
            else:
                rewards = await score(prompt.text, wish.texts)
                reply = _scored(calibration, prompt, rewards)
            await asyncio.sleep(0)  # a chain of many steps lets others have their turn
    finally:
        steps.close()


def _scored(
    calibration: EmpiricalCalibration | None, prompt: Prompt, rewards: np.ndarray
) -> Scored:
    (scored,) = judged(calibration, [prompt.id], rewards[None])
    return scored


def _refusing(step: Callable[[], Any]) -> Any:
    """What the library refuses of a reward's numbers, such as NaN, is no fault of the client's."""
    try:
        return step()
    except ValueError as error:
        raise Refused(500, f"the procedure cannot go on: {error}", "reward_error") from error
