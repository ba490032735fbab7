"""A store of any size: a policy without a model, and a reward that reads a number."""

import numpy as np

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling

SEED = 0


class Numbers:
    """Says a number; about 40 bytes with three tokens."""

    name, fingerprint, sampling = "numbers", "numbers-1", Sampling()

    def sample(self, prompts, k, rng):
        values = rng.normal(size=(len(prompts), k)).tolist()
        return [
            [Response(f"the answer is {v!r}", (1, 2, 3), -abs(v)) for v in row] for row in values
        ]


class Said:
    """The number in the response."""

    name = "said"

    def __call__(self, prompts, responses):
        return np.array([[float(text[14:]) for text in row] for row in responses])


def made_prompts(count: int) -> list[Prompt]:
    """Distinct prompts whose ids, like real ones, are in no order."""
    return [Prompt(f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}", f"question {i}") for i in range(count)]
