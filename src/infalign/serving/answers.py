"""An answer as clients read it: OpenAI's JSON, whole or in pieces, and what the procedure adds."""

import dataclasses
import json
import math
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from infalign.decoding import Decoded
from infalign.serving.drawing import Usage
from infalign.serving.requests import Asked

__all__ = ["Found", "event", "plain", "standing"]

_IDS = ("token_ids", "prompt_token_ids", "response_token_ids")
_PIECES = re.compile(r"\s*\S+|\s+$")


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found for a request."""

    asked: Asked
    decoded: Decoded
    procedure: str
    """Its name."""
    reward: str | None
    """Its name; None where nothing was scored."""
    raw: Mapping[str, Any] | None
    """The chosen choice as the upstream gave it, where it is one of its choices."""
    model: str
    """As the upstream calls it."""
    usage: Usage
    """Of all candidates."""
    id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    def facts(self) -> dict[str, Any]:
        """What the procedure has to say: the field `infalign`."""
        decoded = self.decoded
        quantile, among = standing(decoded)
        facts: dict[str, Any] = {
            "procedure": self.procedure,
            "candidates": self.usage.candidates,
            "index": decoded.index,
            "reward": decoded.rewards[decoded.index] if decoded.rewards else None,
            "reward_name": self.reward,
            "quantile": quantile,
            "quantile_among": among,
            "distinct": len({response.text for response in decoded.candidates}),
            "details": dict(decoded.details),
        }
        if self.asked.show_candidates:
            texts = [response.text for response in decoded.candidates]
            facts["texts"], facts["rewards"] = texts, list(decoded.rewards)
        return plain(facts)

    def headers(self) -> dict[str, str]:
        """The same in short; a number that is none is left out."""
        facts = self.facts()
        values = {name: facts[name] for name in ("procedure", "candidates", "reward", "quantile")}
        return {
            f"x-infalign-{name}": str(value).encode("ascii", "replace").decode()
            for name, value in values.items()
            if value is not None
        }

    def body(self) -> dict[str, Any]:
        """The whole answer."""
        kind = "chat.completion" if self.asked.api == "chat" else "text_completion"
        return {
            **self._head(kind),
            "choices": [self._choice()],
            "usage": self._usage(),
            "infalign": self.facts(),
        }

    def pieces(self) -> Iterator[dict[str, Any]]:
        """The answer piece by piece: word by word, then why it ended and what it cost."""
        is_chat = self.asked.api == "chat"
        head = self._head("chat.completion.chunk" if is_chat else "text_completion")
        if self.asked.include_usage:
            head["usage"] = None
        if is_chat:
            yield {**head, "choices": [_delta({"role": "assistant", "content": ""})]}
        for text in _PIECES.findall(self.decoded.text):
            yield {**head, "choices": [_delta({"content": text}) if is_chat else _text(text)]}
        reason = self._choice()["finish_reason"]
        last = _delta({}, reason) if is_chat else _text("", reason)
        yield {**head, "choices": [last], "infalign": self.facts()}
        if self.asked.include_usage:
            yield {**head, "choices": [], "usage": self._usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.asked.api == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def _choice(self) -> dict[str, Any]:
        decoded, raw = self.decoded, self.raw
        if raw is not None:
            mine = () if self.asked.body.get("return_token_ids") else _IDS
            kept = {key: value for key, value in raw.items() if key not in mine}
            return plain({**kept, "index": 0})
        reason = decoded.candidates[decoded.index].finish_reason if decoded.candidates else "stop"
        shared = {
            "index": 0,
            "logprobs": None,
            "finish_reason": "stop" if reason == "stop" else "length",
        }
        if self.asked.api == "chat":
            return {**shared, "message": {"role": "assistant", "content": decoded.text}}
        return {**shared, "text": decoded.text}

    def _usage(self) -> dict[str, int] | None:
        """None where the upstream counts nothing: no number is better than a wrong one."""
        usage = self.usage
        if not usage.is_told:
            return None
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }


def standing(decoded: Decoded) -> tuple[float | None, str | None]:
    """Where the answer's reward stands, in [0,1], ties half, and among what.

    Under a calibration its quantile; else its rank among the other candidates.

    Example:
        >>> from infalign.protocols import Response
        >>> candidates = (Response("a"), Response("b"), Response("c"))
        >>> standing(Decoded("x", "b", 1, candidates, rewards=(0.0, 2.0, 2.0)))
        (0.75, 'candidates')
    """
    index = decoded.index
    if decoded.quantiles is not None and math.isfinite(decoded.quantiles[index]):
        return float(decoded.quantiles[index]), "reference"
    rewards = np.asarray(decoded.rewards, dtype=float)
    if len(rewards) < 2 or not np.isfinite(rewards).all():
        return None, None
    others, own = np.delete(rewards, index), rewards[index]
    return float(((others < own) + 0.5 * (others == own)).mean()), "candidates"


def plain(value: Any) -> Any:
    """A value as JSON has it: numpy's numbers as numbers, and None for those that are none."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def event(data: Any) -> bytes:
    """One event of a stream."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
    return f"data: {text}\n\n".encode()


def _delta(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _text(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
