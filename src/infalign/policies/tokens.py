"""Text to tokens and back: where a prompt starts, what ends a response, what a reader sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infalign.protocols import Response

__all__ = ["TextCodec", "end_ids"]

_DOCUMENT_START = "<|endoftext|>"


class TextCodec:
    """A tokenizer with the conventions of one sampling law.

    A prompt that begins with a special token is taken as rendered already (a chat template writes
    its own). Any other prompt gets what the tokenizer adds by itself; where it adds nothing and
    the vocabulary has `<|endoftext|>`, the mark between documents in training, the text starts
    with that, because a model has rarely seen text that begins nowhere.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], end_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.stop_ids = frozenset(end_ids) | self._ids_containing(self.stop)
        marks = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self._special_ids = frozenset(marks) | frozenset(tokenizer.all_special_ids)
        self._special = tuple(sorted({*marks.values(), *map(str, tokenizer.all_special_tokens)}))
        start = tokenizer.convert_tokens_to_ids(_DOCUMENT_START)
        known = isinstance(start, int) and tokenizer.convert_ids_to_tokens(start) == _DOCUMENT_START
        self._start = (start,) if known else ()
        self._encoded: dict[str, tuple[int, ...]] = {}

    def encode(self, prompt: str) -> tuple[int, ...]:
        """The tokens a prompt is conditioned on.

        Raises:
            ValueError: the prompt has no tokens.
        """
        if prompt not in self._encoded:
            self._encoded[prompt] = self._encode(prompt)
        return self._encoded[prompt]

    def contexts(
        self, prompts: Sequence[str], room: int, window: int | None
    ) -> list[tuple[int, ...]]:
        """The tokens of each prompt, checked to leave `room` in a context window.

        Raises:
            ValueError: a prompt that does not, named by its index.
        """
        contexts = [self.encode(prompt) for prompt in prompts]
        for index, context in enumerate(contexts):
            if window is not None and len(context) + room > window:
                raise ValueError(
                    f"prompt {index} ({prompts[index][:60]!r}) has {len(context)} tokens; with "
                    f"max_new_tokens={room} that is {len(context) + room}, more than the context "
                    f"window of {window}. Shorten the prompt or max_new_tokens."
                )
        return contexts

    def context_text(self, prompt: str) -> str:
        """The text whose tokens, with none added, are those a prompt is conditioned on.

        For engines that tokenize by themselves and know nothing of what is put before a prompt.

        Raises:
            ValueError: no text has these tokens.
        """
        ids = self.encode(prompt)
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) != ids:
            raise ValueError(
                f"prompt {prompt[:60]!r} is conditioned on tokens that read {text[:60]!r}, which "
                "the tokenizer reads as others, so another engine could not be asked the same. "
                "Use a prompt without special tokens or odd white space."
            )
        return text

    def _encode(self, prompt: str) -> tuple[int, ...]:
        rendered = bool(self._special) and prompt.startswith(self._special)
        ids = tuple(self.tokenizer(prompt, add_special_tokens=not rendered)["input_ids"])
        begins_special = bool(ids) and ids[0] in self._special_ids
        if not begins_special:
            ids = self._start + ids
        if not ids:
            raise ValueError(
                f"prompt {prompt!r} has no tokens and the tokenizer adds none, so there is "
                "nothing to condition on. Give at least one character."
            )
        return ids

    def written(self, prompt: str) -> str:
        """Text that the tokenizer, left to its own defaults, reads as :meth:`encode`'s tokens.

        For servers that are given text: they tokenize it as the tokenizer does by itself.

        Raises:
            ValueError: no such text is known.
        """
        wanted = self.encode(prompt)
        for text in (prompt, _DOCUMENT_START + prompt):
            if tuple(self.tokenizer(text)["input_ids"]) == wanted:
                return text
        raise ValueError(
            f"prompt {prompt[:60]!r} cannot be given to a server as text: its tokenizer adds "
            "special tokens to what begins with one already, and would read another prompt. Use a "
            "server that takes token ids (vLLM, SGLang)."
        )

    def response(self, ids: Sequence[int], log_prob: float, longest: int | None = None) -> Response:
        """A response from its sampled tokens, the terminating one included.

        Without one it was cut by the length cap; or, where that is given as `longest` and not
        reached, by a limit.
        """
        stopped = bool(ids) and ids[-1] in self.stop_ids
        cut = "length" if longest is None or len(ids) >= longest else "limit"
        return Response(
            text=self.text(ids),
            token_ids=tuple(ids),
            log_prob=log_prob,
            finish_reason="stop" if stopped else cut,
        )

    def checked(
        self, responses: Sequence[Sequence[Response]], longest: int
    ) -> list[tuple[int, ...]]:
        """The tokens of all responses in one list, each checked to be one of this law."""
        for p, row in enumerate(responses):
            for k, response in enumerate(row):
                self.check(response, longest, f"[{p}][{k}]")
        return [response.token_ids for row in responses for response in row]

    def check(self, response: Response, longest: int, place: str) -> None:
        """Refuse a response that this sampling law cannot have produced.

        What a limit has cut (finish reason `limit`) is a beginning, and may break off anywhere.

        Raises:
            ValueError: it has no tokens, more than `longest`, goes on after a token that ends a
                response, or stops without one before the cap.
        """
        ids = response.token_ids
        if not ids or len(ids) > longest:
            raise ValueError(
                f"response {place} ({response.text[:40]!r}) has {len(ids)} token ids; this "
                f"sampling law writes 1 to {longest}. Score responses sampled under the same law."
            )
        ended = [i in self.stop_ids for i in ids]
        may_go_on = len(ids) == longest or response.finish_reason == "limit"
        if any(ended[:-1]) or not (ended[-1] or may_go_on):
            why = "goes on after" if any(ended[:-1]) else "breaks off without"
            raise ValueError(
                f"response {place} ({response.text[:40]!r}) {why} a token that ends a response "
                f"(end-of-sequence or one containing {self.stop}), so its probability under this "
                "sampling law is 0. Score responses sampled under the same law."
            )

    def beginnings(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]], longest: int
    ) -> list[tuple[int, ...]]:
        """A beginning for each prompt, checked to be one that something can follow.

        Raises:
            ValueError: another number than of prompts; a beginning that has ended or leaves no room
                below `longest`.
        """
        if len(beginnings) != len(prompts):
            raise ValueError(
                f"{len(prompts)} prompts came with {len(beginnings)} beginnings; each prompt needs "
                "one, which may be empty."
            )
        begun = [tuple(int(token) for token in one) for one in beginnings]
        for place, one in enumerate(begun):
            if not self.stop_ids.isdisjoint(one) or len(one) >= longest:
                raise ValueError(
                    f"beginning {place} has {len(one)} tokens and has ended or fills the length "
                    f"cap of {longest}; nothing can follow it."
                )
        return begun

    def text(self, ids: Sequence[int]) -> str:
        """What a reader sees: no special tokens, cut before the stop string in the last token."""
        text = self._decode(ids)
        if not self.stop or not ids or ids[-1] not in self.stop_ids:
            return text
        before = len(self._decode(ids[:-1]).rstrip("\N{REPLACEMENT CHARACTER}"))
        cuts = [place for stop in self.stop if (place := text.find(stop, before)) >= 0]
        return text[: min(cuts)] if cuts else text

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts of the tokens no reader sees, sorted."""
        return self._special

    @property
    def end_marks(self) -> tuple[str, ...]:
        """Those of them that end a response."""
        ends = {self.tokenizer.convert_ids_to_tokens(i) for i in self.stop_ids & self._special_ids}
        return tuple(sorted(ends))

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _ids_containing(self, stop: Sequence[str]) -> frozenset[int]:
        if not stop:
            return frozenset()
        texts = self.tokenizer.batch_decode(
            np.arange(len(self.tokenizer))[:, None].tolist(), clean_up_tokenization_spaces=False
        )
        return frozenset(i for i, text in enumerate(texts) if any(s in text for s in stop))


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """The end-of-sequence tokens of a model: its generation settings' and its tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None})
