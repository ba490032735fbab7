"""Film-review snippets rated by people: who may learn from which, and the prompts they open.

The ratings are divided once, by a hash of the snippet, into three parts that share no snippet:
one fits the training reward, one fits the gold judge, and the third measures both heads and opens
the prompts. So what trains is never what judges, and no head has seen the text a prompt came from.
A prompt is the first four words of a snippet; the model writes on until the closing quote.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import re
from typing import Literal

import numpy as np

from infalign.assets.store import RATINGS, asset_folder

__all__ = [
    "REVIEW_PREFIX",
    "FilmRatings",
    "Part",
    "embedded_prompts",
    "film_ratings",
    "make_openings",
    "rating_split",
]

REVIEW_PREFIX = 'Movie review: "'
"""What stands before the opening in every embedded prompt."""

Part = Literal["training", "gold", "held-out"]
_SHARES: dict[Part, float] = {"training": 0.47, "gold": 0.33, "held-out": 0.20}
_OPENING_WORDS = 4
_LEAST_WORDS = 7
"""Shorter snippets leave too little of the review to write."""
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*,?")


@dataclasses.dataclass(frozen=True)
class FilmRatings:
    """Snippets with the mean rating of up to twenty people each."""

    snippets: tuple[str, ...]
    """One sentence or two of a film review."""
    ratings: np.ndarray
    """Mean sentiment, −4 (worst) to 4 (best)."""


def film_ratings(part: Part | None = None) -> FilmRatings:
    """The rated snippets, all or those of one part; fetched at first use.

    Args:
        part: `training`, `gold` or `held-out`; None for all 10,605.
    """
    lines = (asset_folder("film-ratings") / RATINGS).read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 2) for line in lines if line.strip()]
    chosen = [row for row in rows if part is None or rating_split(row[2].strip()) == part]
    snippets = tuple(row[2].strip() for row in chosen)
    return FilmRatings(snippets, np.array([float(row[1]) for row in chosen]))


def rating_split(snippet: str) -> Part:
    """Which part a snippet belongs to: a fixed function of its text.

    Example:
        >>> rating_split("Effective but too tepid biopic")
        'held-out'
    """
    place = _uniform(snippet)
    for part, share in _SHARES.items():
        if place < share:
            return part
        place -= share
    return "held-out"


def embedded_prompts(count: int, split: Literal["train", "test"] = "train") -> list[str]:
    """Prompts of the embedded default, in a fixed order: the first `count` of a split.

    Openings are unique over both splits and never open a snippet that fitted a reward.

    Args:
        count: how many; ≥ 1.
        split: `train` or `test`, disjoint.

    Raises:
        ValueError: more prompts asked for than there are.

    Example:
        >>> prompts = embedded_prompts(2, "test")
        >>> all(prompt.startswith('Movie review: "') for prompt in prompts)
        True
    """
    openings = _shipped_openings()
    if split not in openings:
        raise ValueError(f"split is {split!r}; there are 'train' and 'test'.")
    if not 1 <= count <= len(openings[split]):
        raise ValueError(
            f"{count} prompts asked for; the {split} split has 1 to {len(openings[split])}. "
            "For more, write your own prompts file."
        )
    return [REVIEW_PREFIX + opening for opening in openings[split][:count]]


def make_openings(test_share: float = 0.25) -> dict[str, list[str]]:
    """Choose the openings from the held-out part of the ratings; how the shipped file was made."""
    fitted = {
        _key(opening)
        for part in ("training", "gold")
        for snippet in film_ratings(part).snippets
        if (opening := _opening(snippet))
    }
    unique: dict[str, str] = {}
    for snippet in film_ratings("held-out").snippets:
        opening = _opening(snippet)
        if opening and _key(opening) not in fitted:
            unique.setdefault(_key(opening), opening)
    ordered = sorted(unique.values(), key=_uniform)
    cut = round(len(ordered) * test_share)
    return {"train": ordered[cut:], "test": ordered[:cut]}


@functools.cache
def _shipped_openings() -> dict[str, list[str]]:
    file = importlib.resources.files("infalign.assets") / "openings.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _opening(snippet: str) -> str | None:
    words = snippet.split()
    if len(words) < _LEAST_WORDS:
        return None
    opening = words[:_OPENING_WORDS]
    if not all(_WORD.fullmatch(word) for word in opening) or not opening[0][0].isupper():
        return None
    return " ".join(opening)


def _key(opening: str) -> str:
    return opening.lower().replace(",", "")


def _uniform(text: str) -> float:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
