"""The embedded rewards of film reviews: one to train on, a gold judge, a rule-based auditor.

What trains is never what judges: the training reward is a head on MiniLM, the gold judge a head on
SmolLM2 fitted to *other* ratings by people, and the auditor a lexicon that has seen neither.
Their prompts are openings of reviews, and the text that is rated is opening and answer together.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from infalign.assets import REVIEW_PREFIX, AssetError, asset_folder
from infalign.rewards.heads import LinearHead
from infalign.rewards.scoring import Pair, PairScores, Progress

__all__ = ["HeadReward", "VaderReward", "gold_reward", "review_text", "training_reward"]

_log = logging.getLogger(__name__)


def review_text(prompt: str, response: str) -> str:
    """What is rated: opening and answer of an embedded prompt; of any other prompt, the answer.

    Example:
        >>> review_text('Movie review: "A tender and', ' touching story.')
        'A tender and touching story.'
        >>> review_text("How was the film?", "Dull.")
        'Dull.'
    """
    if prompt.startswith(REVIEW_PREFIX):
        return (prompt.removeprefix(REVIEW_PREFIX) + response).strip()
    return response.strip()


class HeadReward:
    """A linear head on a frozen encoder.

    Args:
        name: the reward's column in the store and the report.
        encoder: texts to features "N D".
        head: features to rewards.
    """

    def __init__(
        self, name: str, encoder: Callable[[Sequence[str]], np.ndarray], head: LinearHead
    ) -> None:
        self.name = name
        self.head = head
        self._encoder = encoder
        self._scores = PairScores(self._score, batch=256)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "P K"]:
        """Predicted mean rating by people, about −4 to 4, of K responses to each of P prompts."""
        return self._scores(prompts, responses, progress)

    def rate(self, texts: Sequence[str]) -> Float[np.ndarray, "N"]:
        """Rewards of plain texts."""
        return self.head(self._encoder(texts))

    def _score(self, pairs: list[Pair]) -> np.ndarray:
        return self.rate([review_text(*pair) for pair in pairs])


class VaderReward:
    """The VADER lexicon's compound score, −1 to 1: rules, no training; many exact ties at 0.

    Right as an auditor that nothing was trained against, poor as a training reward: one text in
    eight scores exactly 0.

    Raises:
        ImportError: the package `vaderSentiment` is missing.

    Reference:
        VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text
        (Hutto and Gilbert, ICWSM 2014)
    """

    name = "vader"

    def __init__(self) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ModuleNotFoundError as error:
            raise ImportError(
                "the VADER auditor needs the package vaderSentiment: pip install 'infalign[lm]'"
            ) from error
        self._analyzer: Any = SentimentIntensityAnalyzer()
        self._scores = PairScores(self._score)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "P K"]:
        """Compound sentiment of K responses to each of P prompts."""
        return self._scores(prompts, responses, progress)

    def _score(self, pairs: list[Pair]) -> list[float]:
        texts = [review_text(*pair) for pair in pairs]
        return [float(self._analyzer.polarity_scores(text)["compound"]) for text in texts]


def training_reward() -> HeadReward:
    """The embedded training reward: MiniLM with a head on people's ratings of film reviews.

    Where MiniLM can be neither found nor fetched, SmolLM2 with a head on the same ratings takes its
    place, with a warning.

    Raises:
        AssetError: neither encoder can be had.
    """
    try:
        folder = asset_folder("all-minilm-l6-v2")
    except AssetError as error:
        _log.warning(
            "%s\nThe training reward falls back to a head on SmolLM2: its own encoder is then the "
            "gold judge's too, though the ratings differ.",
            error,
        )
        return _smollm2_reward("film-rating-smollm2", "smollm2-training")
    from infalign.rewards.encoders import MiniLM

    return HeadReward("film-rating", MiniLM(folder), LinearHead.shipped("minilm-training"))


def gold_reward() -> HeadReward:
    """The embedded gold judge: SmolLM2 with a head fitted on ratings the training reward never saw.

    Raises:
        AssetError: SmolLM2 can be neither found nor fetched.
    """
    return _smollm2_reward("gold", "smollm2-gold")


def _smollm2_reward(name: str, head: str) -> HeadReward:
    folder = asset_folder("smollm2-135m-instruct")
    from infalign.rewards.encoders import SmolLM2

    return HeadReward(name, SmolLM2(folder), LinearHead.shipped(head))
