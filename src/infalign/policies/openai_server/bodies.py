"""What a request says: the sampling law in a server's own words, and a prompt as messages."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from infalign.policies.openai_server.dialects import DIALECTS, ServerKind
from infalign.protocols import Sampling

__all__ = ["body_of", "messages_of", "refuse_long_stops"]


def body_of(
    model: str,
    sampling: Sampling,
    server: ServerKind,
    api: Literal["completions", "chat"],
    log_probs: bool,
    stop_ids: Collection[int] | None,
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """What all requests share: everything but prompt, seed and `n`.

    Args:
        model: the name the server knows it by.
        sampling: the law.
        server: which words say it.
        api: of the two protocols.
        log_probs: ask for them.
        stop_ids: tokens that end a response, instead of the stop strings.
        further: the user's own fields, which win over ours.
    """
    dialect = DIALECTS[server]
    extra = dict(dialect.whole_vocabulary)
    if dialect.token_ids:
        extra["return_token_ids"] = True
    if stop_ids is not None:
        extra["stop_token_ids"] = sorted(stop_ids)
    newer = api == "chat" and server == "openai"
    body: dict[str, Any] = {
        "model": model,
        "max_completion_tokens" if newer else "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "extra_body": extra | dict(further),
    }
    if sampling.stop and stop_ids is None:
        body["stop"] = list(sampling.stop)
    if log_probs:
        body["logprobs"] = True if api == "chat" else 1
    return body


def messages_of(prompt: str) -> list[dict[str, Any]]:
    """The chat a prompt's text stands for; text that is no chat is one user's message."""
    try:
        found: Any = json.loads(prompt)
    except ValueError:
        found = None
    turns = found if isinstance(found, list) else []
    if turns and all(
        isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns
    ):
        return turns
    return [{"role": "user", "content": prompt}]


def refuse_long_stops(stops: Sequence[str], server: str) -> None:
    """One character cannot straddle two tokens; a longer stop can, and then the laws differ."""
    for stop in stops:
        if len(stop) > 1 or not stop.isascii():
            raise ValueError(
                f"stop contains {stop!r} and server is {server!r}, which takes stops as text and "
                "ends a response even where the string straddles two tokens; the local policy ends "
                "one at a token that contains it. Use single ASCII characters, or a server that "
                "takes token ids (vllm, sglang)."
            )
