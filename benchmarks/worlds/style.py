"""What can be counted in an answer without a model: how long, how set out, in which words.

Cheap features (0.3 ms a text) that say much of what a judge prefers: on AlpacaEval they order nine
pairs in ten as its judge does.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["style", "words"]

_WORD = re.compile(r"[a-z']+")
_REFUSING = re.compile(r"\b(sorry|cannot|can't|unable|as an ai)\b")
_COUNTED = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        *(r"\n", r"\n\n", r"^\s*\d+[.)]", r"^\s*[-*•]", r"\*\*", r"```", r"#", r"[0-9]", r","),
        *(r"!", r"\?", r":", r'"', r"\(", r"\b(?:I|my|My)\b", r"\b(?:you|your|You|Your)\b"),
        r"[^\x00-\u2fff]",
    )
)


def style(prompts: Sequence[str], responses: Sequence[Sequence[str]]) -> Float[np.ndarray, "P C D"]:
    """Length, layout, vocabulary, refusal, overlap with the prompt. The first is log length.

    Example:
        >>> style(["Why?"], [["", "Because."]])[0, :, 0].round(3).tolist()
        [0.0, 2.079]
    """
    return np.array(
        [
            [_style(prompt, text) for text in row]
            for prompt, row in zip(prompts, responses, strict=True)
        ]
    )


def _style(prompt: str, text: str) -> list[float]:
    found = _WORD.findall(text.lower())
    asked, used, size = set(_WORD.findall(prompt.lower())), set(found), max(len(text), 1)
    counts = [np.log1p(len(pattern.findall(text))) for pattern in _COUNTED]
    return [
        np.log(size),
        np.log(size) ** 2,
        *counts,
        len(used) / max(len(found), 1),
        sum(map(len, found)) / max(len(found), 1),
        len(asked & used) / max(len(asked), 1),
        sum(map(str.isupper, text)) / size,
        len(zlib.compress(text.encode())) / size,
        float(text[-1:] in set(".!?\"')`*:")),
        float(text[:1].isupper()),
        float(_REFUSING.search(text[:200].lower()) is not None),
        float(not found),
    ]


def words(responses: Sequence[Sequence[str]], columns: int = 512) -> Float[np.ndarray, "P C D"]:
    """Which words occur among the first 1,500 characters, hashed to so many columns. 0 or 1.

    Example:
        >>> words([["no no", "yes"]]).sum(-1).tolist()
        [[1.0, 1.0]]
    """
    found = np.zeros((len(responses), len(responses[0]), columns))
    for p, row in enumerate(responses):
        for c, text in enumerate(row):
            hashed = [zlib.crc32(w.encode()) % columns for w in _WORD.findall(text[:1500].lower())]
            found[p, c, hashed] = 1
    return found
