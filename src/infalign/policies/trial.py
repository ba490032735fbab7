"""A few responses of an engine, drawn before long work: does it sample, and from which law?"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from infalign.protocols import Response

__all__ = ["HOT", "Trial", "refuse_repeats"]

HOT = 2.0
"""Temperature at which no law is so narrow that a sampler repeats itself; most servers' highest."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What an engine answered when it was tried."""

    prompts: tuple[str, ...]
    """P prompts."""
    responses: list[list[Response]]
    """P lists of K."""
    reported: Float[np.ndarray, "P K"]
    """The engine's own log-probability of each response; NaN where it gives none. Nats."""
    temperature: float
    """Of the law that `reported` refers to."""


def refuse_repeats(who: str, prompts: Sequence[str], answers: Sequence[Sequence[Hashable]]) -> None:
    """Refuse an engine that answers every prompt twice alike although it was asked at `HOT`.

    Args:
        who: begins the message.
        prompts: P of them.
        answers: P lists of at least 2, drawn with different seeds.

    Raises:
        ValueError: each prompt's answers are all the same.

    Example:
        >>> refuse_repeats("it", ["a"], [["x", "y"]])
    """
    if answers and all(len(set(row)) == 1 for row in answers):
        raise ValueError(
            f"{who} answered each of {len(answers)} prompts {len(answers[0])} times alike at "
            f"temperature {HOT} (prompt {prompts[0][:40]!r}: {str(answers[0][0])[:60]!r}), so it "
            "decodes greedily or from a cache, and K rollouts would all be one. Make it sample: "
            "name the kind of `server` that it is, because each is told differently to sample."
        )
