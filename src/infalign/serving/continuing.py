"""Going on from the beginning of a response, with an upstream that speaks token ids (vLLM).

The first answer of the upstream tells the prompt's tokens; a beginning's tokens behind them are a
completion's prompt. The text of the whole is that of all its tokens, since a character's bytes may
lie on both sides.
"""

from collections.abc import Mapping
from typing import Any

from infalign.decoding import Draw
from infalign.policies.openai_server.answers import Choice
from infalign.serving.refusals import Refused, refused_request
from infalign.serving.requests import Api, Asked
from infalign.serving.upstream import Upstream

__all__ = ["continued", "require_continuable", "whole_text"]

_LAW = (
    *("model", "temperature", "top_p", "top_k", "min_p", "stop", "stop_token_ids", "logit_bias"),
    *("ignore_eos", "min_tokens", "bad_words", "return_token_ids", "user"),
)
"""Fields that mean the same to a beginning's continuation."""
_COUNTING = (("presence_penalty", 0), ("frequency_penalty", 0), ("repetition_penalty", 1))
"""Fields that count what was written, and would take a beginning for the prompt; and unset."""


def require_continuable(asked: Asked, wish: Draw) -> None:
    """Refuse what would be another law after a beginning than from the start.

    Raises:
        Refused: with 400.
    """
    if wish.erased:
        raise refused_request("no upstream fills gaps in a response.")
    if asked.longest is None:
        raise refused_request(
            "max_tokens is missing; a procedure that goes on from beginnings needs to know how "
            "long a response may be.",
            "max_tokens",
        )
    for name, unset in _COUNTING:
        if asked.body.get(name) not in (None, unset):
            raise refused_request(
                f"{name} counts what was written, and a procedure that goes on from beginnings "
                "would have it count differently after each. Leave it out.",
                name,
            )


def continued(
    asked: Asked,
    body: Mapping[str, Any],
    prompt_ids: list[int] | None,
    beginning: tuple[int, ...],
    limit: int | None,
) -> tuple[Api, dict[str, Any], int]:
    """Protocol and body of a continuation, and the tokens after which the response is at its cap.

    Args:
        asked: what the client wants.
        body: what goes upstream for a whole response.
        prompt_ids: the prompt as the upstream told it; needed after a beginning.
        beginning: token ids written before.
        limit: new tokens at most; None: up to the cap.
    """
    cap = (asked.longest or 0) - len(beginning)
    length = cap if limit is None else min(limit, cap)
    if not beginning:
        further = {key: value for key, value in body.items() if key != "max_completion_tokens"}
        return asked.api, {**further, "max_tokens": length}, cap
    if prompt_ids is None:
        raise Refused(502, "the upstream does not tell the tokens of the prompt.", "upstream_error")
    law = {key: body[key] for key in (*_LAW, "repetition_penalty") if key in body}
    return "completions", {**law, "prompt": [*prompt_ids, *beginning], "max_tokens": length}, cap


async def whole_text(
    upstream: Upstream,
    asked: Asked,
    ids: tuple[int, ...],
    choice: Choice,
    raw: Mapping[str, Any],
) -> str:
    """The text of all tokens of a response, as a reader sees it: without what ended it."""
    ended = raw.get("stop_reason")
    # A stop string lies within the text; every other end is the last token.
    is_last = choice.finish_reason == "stop" and not isinstance(ended, str)
    visible = list(ids[:-1] if is_last else ids)
    text = await upstream.detokenized(asked.body["model"], visible) if visible else ""
    if isinstance(ended, str) and choice.finish_reason == "stop":
        at = text.find(ended)
        return text if at < 0 else text[:at]
    return text
