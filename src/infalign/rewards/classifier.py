"""A Hugging Face sequence-classification model as a reward: what most reward models are."""

import logging
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from infalign.rewards.scoring import Pair, PairScores, Progress

__all__ = ["ClassifierReward"]

_log = logging.getLogger(__name__)


class ClassifierReward:
    """The logit of one label of a sequence-classification model.

    Prompt and response are given as a user's and an assistant's turn where the tokenizer has a chat
    template, and as a pair of texts otherwise. Texts longer than the model's window lose their end,
    with a warning.

    Args:
        model: a sequence-classification model in memory; :meth:`from_pretrained` loads one.
        tokenizer: its tokenizer.
        label: whose logit is the reward, by index or name; needed where there are several.
        name: the reward's column in the store and the report.
        batch_size: texts at a time.

    Raises:
        ValueError: several labels and none chosen, or one that does not exist.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: int | str | None = None,
        name: str = "classifier",
        batch_size: int = 32,
    ) -> None:
        self.name = name
        self._model, self._tokenizer = model.eval(), tokenizer
        self._column = _column(model.config, label)
        self._longest = _longest(model.config, tokenizer)
        self._warned = False
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id  # how the last token is found
        self._scores = PairScores(self._score, batch_size)

    @classmethod
    def from_pretrained(cls, path: str, *, device: str | None = None, **options: Any) -> Self:
        """Load from a folder or model id; `options` are those of the constructor.

        Raises:
            ValueError: nothing loadable there.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
            model: Any = AutoModelForSequenceClassification.from_pretrained(path)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"no sequence-classification model could be loaded from {path!r}: {error}. Give a "
                "local folder with config.json, weights and tokenizer, or a model id."
            ) from error
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        name = path.rstrip("/").rsplit("/", 1)[-1]
        options = {"name": name} | options
        return cls(model.to(device), tokenizer, **options)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "P K"]:
        """The label's logit for K responses to each of P prompts."""
        return self._scores(prompts, responses, progress)

    def _score(self, pairs: list[Pair]) -> np.ndarray:
        import torch

        tokens = self._tokens(pairs).to(self._model.device)
        with torch.no_grad():
            logits = self._model(**tokens).logits
        return logits[:, self._column].float().cpu().numpy()

    def _tokens(self, pairs: list[Pair]) -> Any:
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        if self._longest is not None:
            options |= {"truncation": True, "max_length": self._longest}
        if getattr(self._tokenizer, "chat_template", None):
            texts = [self._tokenizer.apply_chat_template(_turns(*p), tokenize=False) for p in pairs]
            tokens = self._tokenizer(texts, add_special_tokens=False, **options)
        else:
            prompts, responses = map(list, zip(*pairs, strict=True))
            tokens = self._tokenizer(prompts, responses, **options)
        self._warn_if_cut(tokens)
        return tokens

    def _warn_if_cut(self, tokens: Any) -> None:
        full = self._longest is not None and tokens["attention_mask"].sum(1).max() >= self._longest
        if full and not self._warned:
            _log.warning(
                "%s reads at most %d tokens; longer texts lose their end.", self.name, self._longest
            )
            self._warned = True


def _turns(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _column(config: Any, label: int | str | None) -> int:
    names = {int(i): name for i, name in config.id2label.items()}
    if label is None and config.num_labels == 1:
        return 0
    by_name = {name: i for i, name in names.items()}
    column = by_name.get(label) if isinstance(label, str) else label
    if column is None or column not in range(config.num_labels):
        came = "no label was chosen" if label is None else f"label is {label!r}"
        raise ValueError(
            f"{came} and the model has {config.num_labels}: {names}. Give the index or the name of "
            "the label whose logit is the reward (higher must be better)."
        )
    return column


def _longest(config: Any, tokenizer: Any) -> int | None:
    """The window in tokens; tokenizers without one report an astronomical number."""
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min((int(limit) for limit in limits if limit and limit < 10**9), default=None)
