"""What an answer is worth if another one is right: the utilities of minimum Bayes risk.

All pairs are asked for at once, so that a utility can take each text apart only once. ROUGE, BLEU
and chrF come from `rouge-score` and `sacrebleu` (`pip install 'infalign[vote]'`), which are loaded
when first used.
"""

import dataclasses
import difflib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float

__all__ = [
    "UTILITY_NAMES",
    "Bleu",
    "Chrf",
    "ExactMatch",
    "Pairwise",
    "Rouge",
    "Utility",
    "utility_from_name",
]


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


@final
@dataclasses.dataclass(frozen=True)
class Rouge:
    """ROUGE's F-measure, from `rouge-score`: shared words, pairs of words, or common subsequence.

    Only a–z and 0–9 make words, so for other scripts use :class:`Chrf`. In [0, 1]; symmetric.

    Raises:
        ImportError: without `rouge-score`.

    Reference:
        ROUGE: A Package for Automatic Evaluation of Summaries (W04-1013).
    """

    kind: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Words, pairs of words, or the longest common subsequence of words."""
    is_stemmed: bool = False
    """Whether endings of English words are cut off first."""

    def __post_init__(self) -> None:
        if self.kind not in ("rouge1", "rouge2", "rougeL"):
            raise ValueError(f"kind is {self.kind!r} in ROUGE; known: rouge1, rouge2, rougeL.")
        _require("rouge_score", "rouge-score", "ROUGE")

    @property
    def name(self) -> str:
        return self.kind

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "C R"]:
        from rouge_score.tokenizers import DefaultTokenizer

        tokenizer = _Once(DefaultTokenizer(self.is_stemmed))
        agree = _subsequences(tokenizer) if self.kind == "rougeL" else _ngrams(tokenizer, self.kind)
        worth = np.empty((len(texts), len(right)))
        # The F-measure does not change when the two texts do: half of a square is enough.
        is_square = list(texts) == list(right)
        for i, text in enumerate(texts):
            for j in range(i if is_square else 0, len(right)):
                worth[i, j] = agree(text, right[j])
                if is_square:
                    worth[j, i] = worth[i, j]
        return worth


def _ngrams(tokenizer: "_Once", kind: str) -> Callable[[str, str], float]:
    """F-measure of shared n-grams."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=tokenizer)
    return lambda text, right: scorer.score(right, text)[kind].fmeasure


def _subsequences(tokenizer: "_Once") -> Callable[[str, str], float]:
    """F-measure of the longest common subsequence.

    The library's table of all places takes seconds for some dozens of paragraphs; a row of it as
    the bits of one number takes a hundredth of that and gives the same lengths.
    """
    from rouge_score.scoring import fmeasure

    places: dict[str, dict[str, int]] = {}

    def agree(text: str, right: str) -> float:
        words, others = tokenizer.tokenize(text), tokenizer.tokenize(right)
        if not words or not others:
            return 0.0
        if right not in places:
            places[right] = {}
            for place, word in enumerate(others):
                places[right][word] = places[right].get(word, 0) | 1 << place
        common = _longest_common(words, places[right], len(others))
        return fmeasure(common / len(words), common / len(others))

    return agree


def _longest_common(words: Sequence[str], places: Mapping[str, int], length: int) -> int:
    """Length of the longest common subsequence with a text of that length.

    Bit j of `row` is 0 where the length grows from the first j to the first j + 1 words of the
    other text; one addition carries a match through a run of ones.

    Args:
        words: of one text.
        places: word → where it stands in the other text, as bits.
        length: of the other text, in words.
    """
    whole = row = (1 << length) - 1
    for word in words:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & whole
    return length - row.bit_count()


class _Once:
    """A tokenizer that reads each text once."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer, self._read = tokenizer, {}

    def tokenize(self, text: str) -> list[str]:
        if text not in self._read:
            self._read[text] = self._tokenizer.tokenize(text)
        return self._read[text]


@final
@dataclasses.dataclass(frozen=True)
class Bleu:
    """Sentence BLEU with effective order, from `sacrebleu`. In [0, 100]; not symmetric.

    Raises:
        ImportError: without `sacrebleu`.

    Reference:
        A Call for Clarity in Reporting BLEU Scores (W18-6319).
    """

    def __post_init__(self) -> None:
        _require("sacrebleu", "sacrebleu", "BLEU")

    @property
    def name(self) -> str:
        return "bleu"

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "C R"]:
        from sacrebleu.metrics.bleu import BLEU

        return _sentence_scores(BLEU(effective_order=True, force=True), texts, right)


@final
@dataclasses.dataclass(frozen=True)
class Chrf:
    """chrF, n-grams of characters, from `sacrebleu`: for any script. In [0, 100]; not symmetric.

    Raises:
        ImportError: without `sacrebleu`.

    Reference:
        chrF: character n-gram F-score for automatic MT evaluation (W15-3049).
    """

    def __post_init__(self) -> None:
        _require("sacrebleu", "sacrebleu", "chrF")

    @property
    def name(self) -> str:
        return "chrf"

    def __call__(self, texts: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, "C R"]:
        from sacrebleu.metrics.chrf import CHRF

        return _sentence_scores(CHRF(), texts, right)


def _sentence_scores(metric, texts: Sequence[str], right: Sequence[str]) -> np.ndarray:
    return np.array(
        [[metric.sentence_score(text, [other]).score for other in right] for text in texts]
    )


def _require(module: str, package: str, what: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"{what} is taken from {package}, which is not installed: pip install 'infalign[vote]'"
        )


_UTILITIES: Mapping[str, Callable[[], Utility]] = {
    "rouge_l": Rouge,
    "rouge_1": lambda: Rouge("rouge1"),
    "rouge_2": lambda: Rouge("rouge2"),
    "bleu": Bleu,
    "chrf": Chrf,
    "exact_match": ExactMatch,
}
UTILITY_NAMES = tuple(_UTILITIES)
"""Names `utility_from_name` knows."""


def utility_from_name(name: str) -> Utility:
    """The utility of that name.

    Args:
        name: one of `UTILITY_NAMES`.

    Raises:
        ValueError: on an unknown name, with the nearest right one.
        ImportError: where its library is not installed.

    Example:
        >>> utility_from_name("exact_match").name
        'exact match'
    """
    key = name.strip().lower().replace("-", "_")
    if key not in _UTILITIES:
        near = difflib.get_close_matches(key, UTILITY_NAMES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown utility {name!r}.{hint} Known: {', '.join(UTILITY_NAMES)}.")
    return _UTILITIES[key]()
