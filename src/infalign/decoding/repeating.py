"""Several answers to each prompt, some at a time."""

from collections.abc import Sequence

import numpy as np

from infalign.decoding.decode import decode, on_text
from infalign.decoding.text_procedure import Decoded, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Reward, Sampler
from infalign.quantile.calibration import Calibration
from infalign.quantile.procedures import Procedure

__all__ = ["AT_ONCE", "decode_repeatedly"]

AT_ONCE = 512
"""Answers found side by side: enough to fill a batch, and few enough to hold in memory."""


def decode_repeatedly(
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward | None,
    procedure: TextProcedure | Procedure,
    repeats: int,
    *,
    calibration: Calibration | None = None,
    rng: np.random.Generator,
) -> list[list[Decoded]]:
    """`repeats` independent answers to each prompt, each by :func:`.decode` from scratch.

    Args:
        policy: what is sampled from.
        prompts: what to answer.
        reward: of the procedure; not asked where it looks at none.
        procedure: how an answer is found.
        repeats: answers to each prompt.
        calibration: for procedures that look at quantiles.
        rng: of everything.
    """
    asked = reward if on_text(procedure).needs_reward else None
    many = [prompt for prompt in prompts for _ in range(repeats)]
    found: list[Decoded] = []
    for start in range(0, len(many), AT_ONCE):
        some = many[start : start + AT_ONCE]
        found += decode(policy, some, asked, procedure, calibration=calibration, rng=rng)
    return [found[start : start + repeats] for start in range(0, len(found), repeats)]
