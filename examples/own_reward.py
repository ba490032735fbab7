"""A reward of your own, for examples/own_reward.yaml: short answers in plain words.

A reward function gets P prompts and P lists of K response texts, and returns P lists of K numbers;
higher is better, and any scale will do, because only the order within a prompt matters.
"""

from collections.abc import Sequence

WANTED_WORDS = 25
LONG_WORD = 8


def plain_and_short(
    prompts: Sequence[str], responses: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Minus the share of long words, minus a penalty for every word over the wanted number.

    Example:
        >>> plain_and_short(["Hi"], [["Hello there.", "Felicitations, acquaintances!"]])
        [[0.0, -1.0]]
    """
    return [[_score(text) for text in row] for row in responses]


def _score(text: str) -> float:
    words = text.split()
    if not words:
        return -2.0  # an empty answer is plain and short, and no answer
    share = sum(len(word.strip(".,;:!?")) > LONG_WORD for word in words) / len(words)
    return 0.0 - share - 0.02 * max(0, len(words) - WANTED_WORDS)
