"""What can be known of a server before it is asked for much: models, windows, tokens."""

from collections.abc import Sequence
from typing import Any

from infalign.policies.openai_server.connection import Connection
from infalign.policies.tokens import TextCodec

__all__ = ["models_of", "require_same_tokens", "require_window"]


def require_window(
    codec: TextCodec | None, url: str, window: Any, prompts: Sequence[str], longest: int
) -> None:
    """Refuse prompts that leave no room for `longest` tokens, where that can be known.

    Raises:
        ValueError: one does not.
    """
    if isinstance(window, int) and codec is not None:
        try:
            codec.contexts(prompts, longest, window)
        except ValueError as error:
            raise ValueError(f"{error} It is the window (max_model_len) of {url}.") from None


def require_same_tokens(codec: TextCodec | None, prompt: str, counted: int | None) -> None:
    """Refuse a server that counts other tokens in a prompt than the local tokenizer.

    Raises:
        ValueError: it does.
    """
    meant = None if codec is None else len(codec.encode(prompt))
    if meant is not None and counted is not None and counted != meant:
        raise ValueError(
            f"the server reads prompt {prompt[:60]!r} as {counted} tokens and the local "
            f"tokenizer as {meant}, so they would answer different questions: another "
            "tokenizer, or special tokens that only one of them adds. Serve the same model, by "
            "a server that takes token ids (vLLM, SGLang)."
        )


async def models_of(connection: Connection, url: str) -> list[dict[str, Any]]:
    """What the server says it serves."""
    from infalign.policies.openai_server.asking import Asker

    async with Asker.opened(connection) as asker:
        return await asker.models(url)
