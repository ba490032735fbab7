"""Whether an engine decodes a response to the text that is stored for it, which its reward saw.

Texts are stored as the response's tokens read alone. Engines decode with the tokenizer's own
defaults, and some decode prompt and response together; tokenizers that tidy spaces or drop the one
a text begins with then read something else, and the reward would be another one, silently. So the
engine's own calls are made on stored responses before anything is written.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Sampled", "drops_space", "refuse_other_texts"]

_PROBED = 32
"""Responses in which a lost space is looked for; each is decoded once for each of its tokens."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A stored response."""

    prompt_id: str
    token_ids: Sequence[int]
    """The token that ended it included."""
    text: str
    """As stored, and as the reward saw it."""


def refuse_other_texts(
    engine: str, sampled: Sequence[Sampled], read: Callable[[Sampled], str]
) -> None:
    """Refuse a tokenizer with which an engine reads stored responses as other texts.

    Args:
        engine: its name.
        sampled: stored responses; none are no evidence, and nothing is refused.
        read: response → what the reward would be asked with in the engine.

    Raises:
        ValueError: naming the first response that is read as another text.
    """
    for one in sampled:
        if (text := read(one)) != one.text:
            raise ValueError(
                f"{engine} reads a response to prompt {one.prompt_id!r} as {text[:60]!r}; it is "
                f"stored as {one.text[:60]!r}, so it would get the training reward of another "
                "text. The tokenizer treats spaces by a rule of its own: set "
                "`clean_up_tokenization_spaces: false` in its configuration if that is true, or "
                "train with TRL, which decodes as the stored texts were."
            )


def drops_space(tokenizer: Any, prompt_ids: Sequence[int], sampled: Sequence[Sampled]) -> bool:
    """Whether tokens that begin with a space lose it when no others are decoded before them.

    So do those of SentencePiece (Llama 2, Mistral): `▁Yes` is `Yes` alone, ` Yes` after a prompt.

    Args:
        tokenizer: with the defaults the engine uses.
        prompt_ids: any prompt, as something to come before.
        sampled: stored responses. All their ends are tried, because none may begin with a space.
    """
    before = _decoded(tokenizer, prompt_ids)
    for one in sampled[:_PROBED]:
        for start in range(len(one.token_ids)):
            end = one.token_ids[start:]
            if _decoded(tokenizer, [*prompt_ids, *end]) == f"{before} {_decoded(tokenizer, end)}":
                return True
    return False


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)
