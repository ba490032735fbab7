"""What a server answered, checked: complete, of the right number, ended for a known reason."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Answer", "BadAnswer", "Choice", "OneAtATime", "answer_of", "excerpt"]

_REASONS: dict[Any, Literal["stop", "length"]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
}
_LONE = re.compile("[\ud800-\udfff]")
_MOST = 2**31
"""No vocabulary is larger, and stores keep 32 bits of a token."""
_ROUNDING = 1e-4
"""How far rounding may lift a log-probability above 0, in nats."""


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
    except RecursionError as error:
        raise BadAnswer("it is not JSON of any sensible depth") from error
    try:
        return _checked(data if isinstance(data, dict) else {}, n, longest)
    except (TypeError, OverflowError, RecursionError) as error:
        raise BadAnswer(f"it is not what the protocol promises ({error})") from error


def _checked(data: Mapping[str, Any], n: int, longest: int) -> Answer:
    choices = data.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise BadAnswer("it has no list of choices")
    if len(choices) == 1 < n:
        raise OneAtATime
    places = [one.get("index") for one in choices]
    # Compared by type first: True is 1 to Python, and null cannot be sorted.
    if not all(type(i) is int for i in places) or sorted(places) != list(range(n)):
        raise BadAnswer(f"it has {len(choices)} choices where {n} were asked for, numbered 0 on")
    usage = data["usage"] if isinstance(data.get("usage"), dict) else {}
    written = _count(usage, "completion_tokens")
    # A few more are no fault: llama.cpp completes a character whose bytes are several tokens.
    if written is not None and written > n * (longest + 4):
        raise BadAnswer(f"it counts {written} tokens where at most {n} × {longest} were allowed")
    whole = written if n == 1 else None
    ordered = sorted(choices, key=lambda one: one["index"])
    return Answer(
        tuple(_choice(one, whole, longest) for one in ordered), _count(usage, "prompt_tokens")
    )


def _choice(one: Mapping[str, Any], whole: int | None, longest: int) -> Choice:
    who = f"choice {one['index']}"
    message = one.get("message")
    text = message.get("content") if isinstance(message, dict) else one.get("text")
    if not isinstance(text, str):
        raise BadAnswer(f"{who} has no text")
    if _LONE.search(text):
        raise BadAnswer(f"{who} has half a character (a lone surrogate), which no file can hold")
    given = one.get("finish_reason")
    reason = _REASONS.get(given) if isinstance(given, str) else None
    if reason is None:
        raise BadAnswer(
            f"{who} ended for the reason {_short(given)}; a response ends by 'stop' or 'length'"
        )
    # The longer name is that of SGLang's chats, and proposed for its completions.
    ids = _token_ids(one.get("token_ids", one.get("response_token_ids")), longest, who)
    return Choice(text, ids, _log_prob(one.get("logprobs"), len(ids) or whole, who), reason)


def _token_ids(given: Any, longest: int, who: str) -> tuple[int, ...]:
    ids = [] if given is None else given
    are_ids = isinstance(ids, list) and all(type(i) is int and 0 <= i < _MOST for i in ids)
    if not are_ids or len(ids) > longest:
        raise BadAnswer(f"{who} has token ids {_short(given)}")
    return tuple(ids)


def _log_prob(given: Any, count: int | None, who: str) -> float:
    """The sum, if every one of `count` tokens has one: a sum over fewer is no log-probability."""
    if not isinstance(given, dict):
        return math.nan
    values: Any = given.get("token_logprobs")
    if values is None and isinstance(given.get("content"), list):
        values = [token.get("logprob") for token in given["content"] if isinstance(token, dict)]
    if not isinstance(values, list) or not values:
        return math.nan
    for value in values:
        is_number = type(value) in (int, float) and -math.inf < value <= _ROUNDING
        if not is_number and value is not None:  # null: this token's is not told
            raise BadAnswer(f"{who} has the log-probability {_short(value)}; it is finite and ≤ 0")
    if None in values or len(values) != count:
        return math.nan
    return min(math.fsum(values), 0.0)


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise BadAnswer(f"its {name} is {_short(value)}; a count is needed")
    return value


def _short(value: Any) -> str:
    """A value that came, in at most 60 characters."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "an enormous number"


def excerpt(body: str) -> str:
    """Enough of what came to recognise it by, on one line."""
    line = " ".join(body.split())
    return repr(line if len(line) <= 200 else line[:197] + "...")
