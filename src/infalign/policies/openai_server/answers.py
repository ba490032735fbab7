"""What a server answered, checked: complete, of the right number, ended for a known reason."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Answer", "BadAnswer", "Choice", "OneAtATime", "answer_of", "excerpt"]

_REASONS: dict[Any, Literal["stop", "length"]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
}


class BadAnswer(ValueError):
    """An answer that is not what the protocol promises; asked again, it may be."""


class OneAtATime(Exception):
    """The server draws one response a request, whatever `n` says."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One response as the server gave it."""

    text: str
    token_ids: tuple[int, ...]
    """Sampled tokens; empty where the server gives none."""
    log_prob: float
    """Summed over all sampled tokens; NaN where the server does not give each of them. Nats."""
    finish_reason: Literal["stop", "length"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of one request."""

    choices: tuple[Choice, ...]
    prompt_tokens: int | None
    """How many tokens the server counted in the prompt, where it says."""


def answer_of(body: str, n: int, longest: int) -> Answer:
    """A completion's or chat completion's JSON, checked.

    Args:
        body: as it came.
        n: responses asked for.
        longest: tokens one response may have.

    Raises:
        BadAnswer: it is not JSON, has another number of responses, or one is not whole.
        OneAtATime: one response came though several were asked for.

    Example:
        >>> body = '{"choices": [{"index": 0, "text": "Yes.", "finish_reason": "stop"}]}'
        >>> answer_of(body, 1, 8).choices[0].text
        'Yes.'
    """
    try:
        data = json.loads(body)
    except ValueError as error:
        raise BadAnswer(f"it is not JSON ({error})") from error
    data = data if isinstance(data, dict) else {}
    choices = data.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise BadAnswer("it has no list of choices")
    if len(choices) == 1 < n:
        raise OneAtATime
    if len(choices) != n or sorted(one.get("index", -1) for one in choices) != list(range(n)):
        raise BadAnswer(f"it has {len(choices)} choices where {n} were asked for, numbered 0 on")
    usage = data["usage"] if isinstance(data.get("usage"), dict) else {}
    written = _count(usage.get("completion_tokens"))
    # A few more are no fault: llama.cpp completes a character whose bytes are several tokens.
    if written is not None and written > n * (longest + 4):
        raise BadAnswer(f"it counts {written} tokens where at most {n} × {longest} were allowed")
    whole = written if n == 1 else None
    ordered = sorted(choices, key=lambda one: one["index"])
    return Answer(
        tuple(_choice(one, whole, longest) for one in ordered), _count(usage.get("prompt_tokens"))
    )


def _choice(one: Mapping[str, Any], whole: int | None, longest: int) -> Choice:
    message = one.get("message")
    text = message.get("content") if isinstance(message, dict) else one.get("text")
    if not isinstance(text, str):
        raise BadAnswer(f"choice {one['index']} has no text")
    reason = _REASONS.get(one.get("finish_reason"))
    if reason is None:
        raise BadAnswer(
            f"choice {one['index']} ended for the reason {one.get('finish_reason')!r}; a response "
            "ends by 'stop' or 'length'"
        )
    ids = one.get("token_ids") or ()
    if not all(isinstance(i, int) and i >= 0 for i in ids) or len(ids) > longest:
        raise BadAnswer(f"choice {one['index']} has token ids {str(ids)[:60]}")
    return Choice(text, tuple(ids), _log_prob(one.get("logprobs"), len(ids) or whole), reason)


def _log_prob(given: Any, count: int | None) -> float:
    """The sum, if every one of `count` tokens has one: a sum over fewer is no log-probability."""
    if not isinstance(given, dict):
        return math.nan
    values: Any = given.get("token_logprobs")
    if values is None and isinstance(given.get("content"), list):
        values = [token.get("logprob") for token in given["content"] if isinstance(token, dict)]
    numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
    return math.fsum(values) if numbers and values and len(values) == count else math.nan


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def excerpt(body: str) -> str:
    """Enough of what came to recognise it by, on one line."""
    line = " ".join(body.split())
    return repr(line if len(line) <= 200 else line[:197] + "...")
