"""What an answer is worth if another one is right: the utilities of minimum Bayes risk.

All pairs are asked for at once, so that a utility can work each text up only once. ROUGE, BLEU and
chrF come from `rouge-score` and `sacrebleu`, which are loaded when first used.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float

__all__ = ["ExactMatch", "Pairwise", "Utility"]


@runtime_checkable
class Utility(Protocol):
    """Worth of each text, if each of the others is the right one."""

    @property
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""
        ...

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "C R"]:
        """Worth of each of C texts against each of R; higher is better."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class ExactMatch:
    """1 where the texts are equal, else 0: minimum Bayes risk is then majority vote.

    Example:
        >>> ExactMatch()(["a", "b"], ["b"]).tolist()
        [[0.0], [1.0]]
    """

    extract: Callable[[str], object] | None = None
    """Text → what is compared; None: the stripped text."""

    @property
    def name(self) -> str:
        return "exact match"

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "C R"]:
        key = self.extract or str.strip
        wanted = [key(text) for text in right]
        return np.array([[float(key(text) == other) for other in wanted] for text in texts])


@final
@dataclasses.dataclass(frozen=True)
class Pairwise:
    """Any function of two texts.

    Example:
        >>> Pairwise(lambda text, right: float(len(text) == len(right)))(["ab"], ["c", "de"])
        array([[0., 1.]])
    """

    function: Callable[[str, str], float]
    """(text, right) → worth, higher is better."""

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "C R"]:
        return np.array([[float(self.function(text, other)) for other in right] for text in texts])
