"""One prompt, its identity, and which side of a split it falls on.

A prompt's id is a hash of its content: the text, or the canonical JSON of its chat messages. Names
that came with a file would tie results to the file; a hash ties them to what was asked.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Message", "Prompt", "render_prompts", "split_prompts"]

Message = Mapping[str, Any]
"""One chat turn: `role` and `content`, and whatever else the chat template knows."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One thing to ask a policy.

    Example:
        >>> Prompt.from_text("Why is the sky blue?").id
        '09ea26793343ba6c'
        >>> print(Prompt.from_messages([{"role": "user", "content": "Hi"}]).text)
        user: Hi
    """

    id: str
    """Content hash, 16 hexadecimal digits."""
    text: str
    """What a sampler is given. For chat prompts a plain fallback until :func:`render_prompts`."""
    messages: tuple[Message, ...] | None = dataclasses.field(default=None, hash=False)
    """Chat turns, or None for a plain-text prompt."""

    @classmethod
    def from_text(cls, text: str) -> "Prompt":
        """A plain-text prompt, taken as it is.

        Raises:
            ValueError: if the text is empty, blank or not encodable as UTF-8.
        """
        if not text.strip():
            raise ValueError("the prompt is empty; a policy needs something to continue")
        return cls(_content_hash(text), text)

    @classmethod
    def from_messages(cls, messages: Sequence[Any]) -> "Prompt":
        """A chat prompt; `text` is "role: content" line by line until a template renders it.

        Args:
            messages: mappings with at least `role` and `content`, both text.

        Raises:
            ValueError: if there is no message, one lacks role or text, or all are blank.
        """
        turns = tuple(_checked_message(message) for message in messages)
        if not any(turn["content"].strip() for turn in turns):
            raise ValueError("the prompt is empty: no message has any content")
        text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        canonical = json.dumps(turns, sort_keys=True, ensure_ascii=False, default=str)
        return cls(_content_hash(canonical), text, turns)


def split_prompts(
    prompts: Sequence[Prompt],
    *,
    test_fraction: float | None = None,
    test_count: int | None = None,
    train_count: int | None = None,
    seed: int = 0,
) -> tuple[list[Prompt], list[Prompt]]:
    """Disjoint train and test prompts, chosen by content hash and seed.

    Prompts are ordered by a hash of (seed, id). A fraction sends a prompt to the test side if its
    hash lies below it, so a prompt never changes sides when others join the file. A count takes
    that many from the front; training prompts are taken from the back, so that raising either
    count only adds prompts until the two meet.

    Args:
        prompts: distinct prompts, in any order.
        test_fraction: expected share of test prompts, in (0, 1).
        test_count: exact number of test prompts, ≥ 1. Give exactly one of the two.
        train_count: at most all that remain, the default. ≥ 1.
        seed: another seed is another split.

    Returns:
        (train, test), each in hash order: the same lists whatever the order of `prompts`.

    Raises:
        ValueError: for repeated prompts, impossible counts, or a side that would be empty.

    Example:
        >>> prompts = [Prompt.from_text(f"question {i}") for i in range(10)]
        >>> train, test = split_prompts(prompts, test_count=3)
        >>> len(train), len(test), (train, test) == split_prompts(prompts[::-1], test_count=3)
        (7, 3, True)
    """
    if (test_fraction is None) == (test_count is None):
        raise ValueError("give exactly one of test_fraction and test_count.")
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise ValueError("prompts repeat; the same prompt in training and test would be no test.")
    ordered = sorted(prompts, key=lambda prompt: _position(prompt, seed))
    if test_fraction is not None:
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction is {test_fraction}; it must lie between 0 and 1.")
        test_count = sum(_position(prompt, seed) < test_fraction for prompt in ordered)
    assert test_count is not None
    train_count = len(prompts) - test_count if train_count is None else train_count
    if test_count < 1 or train_count < 1 or test_count + train_count > len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts cannot be split into {train_count} for training and "
            f"{test_count} for test; each side needs at least one and their sum must fit. "
            "Ask for fewer, or bring more prompts."
        )
    return ordered[::-1][:train_count], ordered[:test_count]


def render_prompts(
    prompts: Sequence[Prompt], template: Callable[[list[Message]], str]
) -> list[Prompt]:
    """Chat prompts with their `text` rendered by a tokenizer's chat template; ids stay.

    Plain-text prompts pass unchanged: they are continued, not answered.

    Args:
        prompts: plain and chat prompts, mixed at will.
        template: messages → text, ending where the assistant's turn begins.

    Example:
        >>> chat = Prompt.from_messages([{"role": "user", "content": "Hi"}])
        >>> render_prompts([chat], lambda turns: f"<|user|>{turns[0]['content']}")[0].text
        '<|user|>Hi'
    """
    return [
        prompt
        if prompt.messages is None
        else dataclasses.replace(prompt, text=template([dict(turn) for turn in prompt.messages]))
        for prompt in prompts
    ]


def _content_hash(content: str) -> str:
    try:
        return hashlib.sha256(content.encode()).hexdigest()[:16]
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is half of a surrogate pair, which is not text"
        ) from error


def _position(prompt: Prompt, seed: int) -> float:
    """Uniform on [0,1) over prompts, and fixed for one prompt and seed."""
    digest = hashlib.sha256(f"{seed}:{prompt.id}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _checked_message(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is {shown(message)}; an object with role and content needed")
    # Parquet gives every message the same keys and fills with null those it did not have.
    turn = {key: value for key, value in message.items() if value is not None}
    for key in ("role", "content"):
        if not isinstance(turn.get(key), str):
            raise ValueError(f"a message's {key} is {shown(turn.get(key))}; text is needed")
    return turn


def shown(value: Any) -> str:
    """A value in an error message: its type, and enough of it to be found again."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
