"""A few responses of an engine, drawn before long work: does it sample, and from which law?"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from infalign.protocols import Response

__all__ = ["Trial", "refuse_repeats"]


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


def refuse_repeats(
    who: str, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
) -> None:
    """Refuse an engine that answers every prompt twice alike: it does not sample.

    Args:
        who: begins the message.
        prompts: P of them.
        responses: P lists of at least 2, drawn with different seeds.

    Raises:
        ValueError: each prompt's responses are all the same text.

    Example:
        >>> refuse_repeats("it", ["a"], [[Response("x"), Response("y")]])
    """
    if responses and all(len({response.text for response in row}) == 1 for row in responses):
        raise ValueError(
            f"{who} answered each of {len(responses)} prompts {len(responses[0])} times with the "
            f"same text (prompt {prompts[0][:40]!r}: {responses[0][0].text[:60]!r}), so it decodes "
            "greedily or from a cache, and K rollouts would all be one. Make it sample: choose the "
            "`server` that it is (each is told differently to sample), or raise the temperature."
        )
