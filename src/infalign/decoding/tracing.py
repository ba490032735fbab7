"""What was drawn on the way to an answer: every new token, and after which beginning.

The probability of an answer is that of its draws, whatever the procedure makes of them. So these
are what a policy gradient credits, for blocks and chains as for whole candidates.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np

from infalign.decoding.running import answer_all
from infalign.decoding.text_procedure import Decoded, Draw, TextProcedure
from infalign.decoding.watching import Watched, Watcher
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler
from infalign.quantile.calibration import Calibration

__all__ = ["Segment", "Trace", "Traced", "answer_traced"]


@final
@dataclasses.dataclass(frozen=True)
class Segment:
    """Tokens drawn in one go."""

    response: Response
    """With what it began with."""
    start: int
    """Its first new token; the ones before were given."""


@final
@dataclasses.dataclass(frozen=True)
class Trace:
    """One answer and all that was drawn for it."""

    decoded: Decoded
    """The answer."""
    segments: tuple[Segment, ...]
    """In the order they were drawn."""


@final
class Traced(Watched):
    """The same procedure, writing down what it is sent.

    Args:
        procedure: what is followed; `segments` has one list for each time it was started.
    """

    def __init__(self, procedure: TextProcedure) -> None:
        self.procedure = procedure
        self.segments: list[list[Segment]] = []

    def watcher(self) -> Watcher:
        kept: list[Segment] = []
        self.segments.append(kept)

        def write_down(wish: Draw, drawn: list[list[Response]]) -> None:
            if wish.erased:  # a gap is filled by no beginning
                return
            for beginning, row in zip(wish.beginnings, drawn, strict=True):
                kept.extend(Segment(response, len(beginning)) for response in row)

        return write_down


def answer_traced(
    procedure: TextProcedure,
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward | None,
    *,
    calibration: Calibration | None = None,
    rng: np.random.Generator,
) -> list[Trace]:
    """:func:`infalign.decoding.decode` with what was drawn; a prompt may stand several times."""
    traced = Traced(procedure)
    answers = answer_all(traced, policy, prompts, reward, calibration=calibration, rng=rng)
    return [
        Trace(decoded, tuple(segments))
        for decoded, segments in zip(answers, traced.segments, strict=True)
    ]
