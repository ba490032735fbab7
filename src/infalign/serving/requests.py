"""A request, read and checked: what goes upstream, and what is ours."""

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from infalign.prompts import Prompt
from infalign.serving.refusals import refused_request

__all__ = ["Api", "Asked", "asked_of", "body_within"]

Api = Literal["chat", "completions"]

_OURS = ("infalign", "n", "seed", "stream", "stream_options", "best_of", "echo")
"""Fields that the upstream is not sent as they came."""
_UNSEEN = ("tools", "functions", "audio")
"""What would make answers of which a reward sees nothing."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a client wants."""

    api: Api
    """Chat or completions."""
    prompt: Prompt
    """As rewards see it: chat messages are "role: content", line by line."""
    body: Mapping[str, Any]
    """For the upstream: everything but what is ours."""
    n: int | None
    """Candidates, where another number than the server's own is wanted."""
    seed: int | None
    """Of draws and choices; None: any."""
    stream: bool
    """Whether the answer is to come in pieces."""
    include_usage: bool
    """Whether its last piece is the usage."""
    show_candidates: bool
    """Whether all candidates are wanted, with their rewards."""

    @property
    def longest(self) -> int | None:
        """Tokens a response may have, where the client says."""
        newer = self.body.get("max_completion_tokens")
        return self.body.get("max_tokens") if newer is None else newer


async def body_within(stream: AsyncIterator[bytes], declared: str | None, most: int) -> bytes:
    """A request's body, as long as it is not too long.

    Raises:
        Refused: with 413.
    """
    too_long = refused_request(
        f"the request is longer than {most} bytes, which is the limit of this server.", status=413
    )
    if declared is not None and declared.isdigit() and int(declared) > most:
        raise too_long
    parts, size = [], 0
    async for part in stream:
        size += len(part)
        if size > most:
            raise too_long
        parts.append(part)
    return b"".join(parts)


def asked_of(raw: bytes, api: Api, model: str | None, most: int) -> Asked:
    """What the body of a request asks for.

    Args:
        raw: JSON.
        api: which of the two protocols it came by.
        model: put in the place of the one it names.
        most: candidates an answer may have.

    Raises:
        Refused: with 400; the message names the field, what came and what is needed.

    Example:
        >>> asked = asked_of(b'{"model": "m", "prompt": "Why?", "n": 4}', "completions", None, 8)
        >>> asked.n, asked.body
        (4, {'model': 'm', 'prompt': 'Why?'})
    """
    data = _parsed(raw)
    for name in _UNSEEN:
        if data.get(name):
            raise refused_request(
                f"{name} came; answers are chosen by a reward that sees text only. Leave it out.",
                name,
            )
    if data.get("echo") or data.get("best_of") not in (None, 1):
        raise refused_request("echo and best_of are not served; the procedure chooses.", "best_of")
    ours = {} if data.get("infalign") is None else data["infalign"]
    _require_known(ours)
    body = {key: value for key, value in data.items() if key not in _OURS}
    if model is not None:
        body["model"] = model
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise refused_request("model is missing; name the one to ask.", "model")
    for name in ("max_tokens", "max_completion_tokens"):
        _count(body, name)
    options = data.get("stream_options") or {}
    return Asked(
        api,
        _prompt(body, api),
        body,
        _wanted(data, ours, most),
        _seed(data),
        _flag(data, "stream"),
        isinstance(options, dict) and _flag(options, "include_usage"),
        _flag(ours, "candidates"),
    )


def _require_known(ours: Any) -> None:
    if not isinstance(ours, dict):
        raise refused_request(
            f"infalign is {_shown(ours)}; an object with n and candidates is needed.", "infalign"
        )
    if unknown := sorted(ours.keys() - {"n", "candidates"}):
        raise refused_request(
            f"infalign holds {_shown(unknown[0])}, which is not known; n and candidates are.",
            "infalign",
        )


def _shown(value: Any) -> str:
    """A value as the client wrote it, short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise refused_request(f"the body is not JSON: {reason}") from None
    if not isinstance(data, dict):
        raise refused_request("the body is JSON but no object.")
    return data


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _wanted(data: Mapping[str, Any], ours: Mapping[str, Any], most: int) -> int | None:
    """Clients send n = 1 by habit and mean one answer, so only a larger one says anything."""
    n = _count(ours, "n", "infalign.n")
    if n is None:
        n = _count(data, "n")
        n = None if n == 1 else n
    if n is not None and n > most:
        raise refused_request(
            f"n is {_shown(n)}; this server draws {most} candidates at most.", "n"
        )
    return n


def _count(data: Mapping[str, Any], name: str, shown: str | None = None) -> int | None:
    value = data.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise refused_request(
            f"{shown or name} is {_shown(value)}; a whole number of at least 1 is needed.",
            shown or name,
        )
    return value


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and type(value) is not bool:
        raise refused_request(f"{name} is {_shown(value)}; true or false is needed.", name)
    return bool(value)


def _seed(data: Mapping[str, Any]) -> int | None:
    seed = data.get("seed")
    if seed is not None and (type(seed) is not int or not -(2**63) <= seed < 2**63):
        raise refused_request("seed is no whole number of 64 bits.", "seed")
    return None if seed is None else seed % 2**64


def _prompt(body: Mapping[str, Any], api: Api) -> Prompt:
    field = "messages" if api == "chat" else "prompt"
    value = body.get(field)
    try:
        if api == "chat":
            if not isinstance(value, list):
                raise refused_request("messages is no list of messages.", field)
            return Prompt.from_messages([_as_text(message) for message in value])
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if not isinstance(value, str):
            raise refused_request("prompt is one text; send a request for each.", field)
        return Prompt.from_text(value)
    except (ValueError, TypeError) as error:
        raise refused_request(str(error), field) from None


def _as_text(message: Any) -> Any:
    """A message whose content is its text: rewards see no images, and none in a call of a tool."""
    if not isinstance(message, dict):
        return message
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    return {"role": message.get("role"), "content": "" if content is None else content}
