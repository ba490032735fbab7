"""TRL made to sample what the reference was sampled from: where prompts start, what ends a text.

TRL ends a response at the end-of-sequence tokens of `model.generation_config`, and masks by the
same list what it trains on. A stop string here is a set of tokens, so the law is exact once they
stand in that list. Its tokens stay part of the response and of its log-probability, as they are
part of the reference's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infalign.integrations.frozen import FrozenReward
from infalign.integrations.trl.rules import Law
from infalign.policies.tokens import TextCodec, end_ids
from infalign.prompts import Prompt

__all__ = ["hold_to_law", "prompts_for_trl", "stop_ids_of"]


def stop_ids_of(model: Any, tokenizer: Any, law: Law) -> list[int]:
    """The tokens that end a response: end-of-sequence, and those that contain a stop string."""
    return sorted(TextCodec(tokenizer, law.stop, end_ids(model, tokenizer)).stop_ids)


def hold_to_law(model: Any, tokenizer: Any, frozen: FrozenReward | Law | str | Path) -> list[int]:
    """Make a model end its responses as the reference did; call it before making a trainer.

    `model.generation_config` is replaced: models bring settings of their own (suppressed tokens,
    penalties), which TRL would keep and which are no part of the law.

    Returns:
        The tokens that end a response; vLLM needs them too, as
        `generation_kwargs={"stop_token_ids": …}`.
    """
    from transformers import GenerationConfig

    ids = stop_ids_of(model, tokenizer, Law.of(frozen))
    old = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=old.bos_token_id, pad_token_id=old.pad_token_id, eos_token_id=ids
    )
    return ids


def prompts_for_trl(prompts: Sequence[Prompt], tokenizer: Any) -> list[Any]:
    """Prompts in the form in which TRL arrives at the tokens the reference was conditioned on.

    Text where possible, with the mark between documents written out where the reference had it;
    chat messages where only the tokenizer's own template gives these tokens.

    Args:
        prompts: chat prompts with their template rendered into `text`.
        tokenizer: the policy's.

    Raises:
        ValueError: TRL would arrive at other tokens, whatever it is given.
    """
    codec = TextCodec(tokenizer, (), ())
    texts = [_text_for_trl(prompt, tokenizer, codec) for prompt in prompts]
    if all(text is not None for text in texts):
        return texts
    # TRL tells chat from text by the first prompt of a batch, so all must be of one kind.
    turns = [None if p.messages is None else [dict(turn) for turn in p.messages] for p in prompts]
    for prompt, messages in zip(prompts, turns, strict=True):
        if messages is None or _chat_ids(tokenizer, messages) != codec.encode(prompt.text):
            raise ValueError(
                f"prompt {prompt.id} ({prompt.text[:40]!r}) reaches TRL as other tokens than the "
                "reference saw, in whatever form it is given. Use the built-in engine, or another "
                "tokenizer."
            )
    return turns


def _text_for_trl(prompt: Prompt, tokenizer: Any, codec: TextCodec) -> str | None:
    wanted, text = codec.encode(prompt.text), prompt.text
    first = tokenizer.decode([wanted[0]], clean_up_tokenization_spaces=False)
    for form in (text, first + text, text.removeprefix(first)):
        if form and tuple(tokenizer(text=[form])["input_ids"][0]) == wanted:
            return form
    return None


def _chat_ids(tokenizer: Any, messages: list[Any]) -> tuple[int, ...]:
    if not getattr(tokenizer, "chat_template", None):
        return ()
    made = tokenizer.apply_chat_template(
        [messages], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return tuple(made["input_ids"][0])
