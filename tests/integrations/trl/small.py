"""The prompts, the reward and the transform of the tests of TRL."""

import hashlib

import numpy as np

from infalign.prompts import Prompt
from infalign.quantile.transforms import Exponential

PROMPTS = [Prompt.from_text(f"it is a {word}") for word in ("tender", "lazy", "lush", "story")]
TRANSFORM = Exponential(3.0)


class Vowels:
    """Share of vowels, and a little that depends on the text alone: few ties, no randomness."""

    name = "vowels"

    def __call__(self, prompts, responses):
        return np.array([[self._one(text) for text in row] for row in responses])

    @staticmethod
    def _one(text):
        noise = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6
        return sum(c in "aeiou" for c in text) / (1 + len(text)) + 0.1 * noise
