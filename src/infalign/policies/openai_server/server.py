"""A model behind an OpenAI-compatible server, as a sampler."""

import asyncio
import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from infalign.policies.counts import refuse_draw
from infalign.policies.openai_server.answers import Answer, Choice, OneAtATime, answer_of
from infalign.policies.openai_server.bodies import body_of, messages_of, refuse_long_stops
from infalign.policies.openai_server.checking import models_of, require_same_tokens, require_window
from infalign.policies.openai_server.connection import Connection
from infalign.policies.openai_server.dialects import DIALECTS, LogProbs, ServerKind
from infalign.policies.tokens import TextCodec
from infalign.policies.trial import HOT, Trial, refuse_repeats
from infalign.protocols import Response, Sampling

if TYPE_CHECKING:
    # Only when a server is asked: who has drawn everything needs no client.
    from infalign.policies.openai_server.asking import Asker

__all__ = ["OpenAIServer"]

_TRIED = 4
"""Prompts a server is tried on, twice each."""

_log = logging.getLogger(__name__)


@final
class OpenAIServer:
    """Samples from a model behind one or several OpenAI-compatible servers.

    Each request has a seed drawn from `rng`, so a server that honours seeds answers the same again
    when a run resumes. With a `codec` and a server that speaks token ids (vLLM, SGLang), prompts go
    out as the very tokens a local policy is conditioned on, responses end at the very tokens where
    its responses end, and come back as tokens: the law is the local policy's, and it is a
    :class:`.Continuer`. Otherwise text goes out and comes back, and the server's tokenizer and stop
    strings decide.

    Args:
        model: the name the server knows it by.
        sampling: temperature, length cap, stop strings.
        connection: addresses, key, timeouts, patience.
        server: which program it is: they need different words for the same law.
        api: `completions` continues the prompt's text; `chat` sends messages, which
            :meth:`render_chat` writes as a prompt's text (other text is one user message).
        codec: the local tokenizer's conventions; None where there is none.
        log_probs: which law the server's log-probabilities refer to: `sampling`, with temperature,
            or `model`, without (kept only at temperature 1, where both are one); `none`: do not
            ask. By default that of the kind of server, see :class:`.Dialect`.
        revision: yours, part of the fingerprint: change it when the weights behind a name change.
        n_per_request: responses asked for in one request, where the server draws several. ≥ 1.
        extra_body: further fields of each request; part of the fingerprint.
        name: what a figure's legend shows.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        connection: Connection | None = None,
        *,
        server: ServerKind = "vllm",
        api: Literal["completions", "chat"] = "completions",
        codec: TextCodec | None = None,
        log_probs: LogProbs | None = None,
        revision: str = "",
        n_per_request: int = 8,
        extra_body: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if server not in DIALECTS:
            raise ValueError(f"server is {server!r}; it must be one of {list(DIALECTS)}.")
        if n_per_request < 1:
            raise ValueError(f"n_per_request is {n_per_request}; at least 1 is needed.")
        if codec is not None and api == "chat":
            raise ValueError(
                "api is chat, whose prompt the server's own template writes; with a local "
                "tokenizer (codec) render prompts by it and use api completions."
            )
        self.model, self.connection = model, connection or Connection()
        self.name = name or model
        self._sampling, self._codec, self._api = sampling, codec, api
        self._server, self._dialect = server, DIALECTS[server]
        self._revision, self._extra = revision, dict(extra_body or {})
        self._exact = codec is not None and self._dialect.token_ids
        self._n = n_per_request if self._dialect.several else 1
        stop_ids = codec.stop_ids if codec is not None and self._exact else None
        gives = self._dialect.log_probs
        self._log_probs: LogProbs = gives if log_probs is None or gives == "none" else log_probs
        told = self._log_probs != "none"
        self._body = body_of(model, sampling, server, api, told, stop_ids, self._extra)
        if codec is not None and not self._exact:
            refuse_long_stops(sampling.stop, server)
        if self._exact:  # elsewhere, having the method would promise what cannot be done
            self.continue_from = self._continue_from

    @property
    def sampling(self) -> Sampling:
        """The sampling law's settings."""
        return self._sampling

    @property
    def gives_token_ids(self) -> bool:
        """Whether responses come with their tokens."""
        return self._dialect.token_ids

    @property
    def fingerprint(self) -> str:
        """Hash of the model's name, your revision, the kind of server and the protocol.

        It is all a client can know: a server does not show its weights.
        """
        facts = [self.model, self._revision, self._server, self._api, self._extra]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Chat messages as a prompt's text: their JSON, which :meth:`sample` sends as messages."""
        return json.dumps(list(messages), sort_keys=True, ensure_ascii=False)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts, all of them or none.

        Raises:
            ImportError: the package `openai` is not installed.
            ConnectionError: no server answered within the connection's patience.
            PermissionError: a server refuses the key.
            ValueError: K < 1; a request is refused, or answers stay malformed.
        """
        rows = self._draw([self._given(prompt) for prompt in prompts], k, rng)
        return [[self._response(choice) for choice in row] for row, _ in rows]

    def _continue_from(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[Sequence[int]],
        k: int,
        rng: np.random.Generator,
        *,
        limit: int | None = None,
    ) -> list[list[Response]]:
        """K independent responses that begin so, to each of M pairs of a prompt and a beginning.

        Both go out as token ids; vLLM and SGLang keep what they have read of them by themselves.

        Raises:
            ValueError: limit < 1, a beginning nothing can follow; else see :meth:`sample`.
        """
        assert self._codec is not None
        refuse_draw(k, limit)
        longest = self._sampling.max_new_tokens
        begun = self._codec.beginnings(prompts, beginnings, longest)
        caps = [min(longest - len(one), limit or longest) for one in begun]
        given = [
            self._given(prompt, one) | {"max_tokens": cap}
            for prompt, one, cap in zip(prompts, begun, caps, strict=True)
        ]
        rows = self._draw(given, k, rng)
        return [
            [self._response(choice, one, cap) for choice in row]
            for (row, _), one, cap in zip(rows, begun, caps, strict=True)
        ]

    def check(self, prompts: Sequence[str]) -> Trial:
        """Ask every server a little, without patience, so that long work does not fail late.

        Raises:
            ImportError: the package `openai` is not installed.
            ConnectionError: a server does not answer.
            PermissionError: it refuses the key.
            ValueError: it does not know the model, has too small a window, reads another prompt
                than was meant, does not sample, or answers in a way that cannot be used.
        """
        from infalign.policies.openai_server.asking import run

        hasty = dataclasses.replace(self.connection, patience=0.0)
        serves = {url: run(models_of, hasty, url) for url in hasty.base_urls}
        for url, cards in serves.items():
            window = next(
                (c.get("max_model_len") for c in cards if c.get("id") == self.model), None
            )
            require_window(self._codec, url, window, prompts, self._sampling.max_new_tokens)
        wanted = [prompts[i % len(prompts)] for i in range(max(_TRIED, len(serves)))]
        try:
            given = [self._given(prompt) for prompt in wanted]
            rows = self._draw(given, 2, np.random.default_rng(0), hasty)
            warm = [one | {"temperature": HOT} for one in given]
            hot = self._draw(warm, 2, np.random.default_rng(1), hasty)
        except ValueError as error:
            known = sorted({str(card.get("id")) for cards in serves.values() for card in cards})
            raise ValueError(
                f"{error} Asked for the model {self.model!r}; served: {known}."
            ) from None
        for prompt, (_, counted) in zip(wanted, rows, strict=True):
            require_same_tokens(self._codec, prompt, counted)
        responses = [[self._response(choice) for choice in row] for row, _ in rows]
        alike = [[(choice.text, choice.token_ids) for choice in row] for row, _ in hot]
        refuse_repeats(f"{hasty.base_urls[0]} ({self._server})", wanted, alike)
        reported = np.array([[choice.log_prob for choice in row] for row, _ in rows])
        temperature = 1.0 if self._log_probs == "model" else self._sampling.temperature
        return Trial(tuple(wanted), responses, reported, temperature)

    def _draw(
        self,
        given: list[dict[str, Any]],
        k: int,
        rng: np.random.Generator,
        connection: Connection | None = None,
    ) -> list[tuple[list[Choice], int | None]]:
        """P rows of K choices, each row with the server's count of the prompt's tokens."""
        if k < 1:
            raise ValueError(f"k is {k}; at least one response per prompt must be asked for.")
        from infalign.policies.openai_server.asking import run

        # One for each response, used or not, so that `n` moves no other request's seed.
        seeds = rng.integers(2**31, size=(len(given), k))
        connection = connection or self.connection
        try:
            return run(self._ask_all, connection, given, seeds, self._n)
        except OneAtATime:
            _log.warning("%s draws one response a request: `n` is not used.", self.model)
            self._n = 1
            return run(self._ask_all, connection, given, seeds, 1)

    async def _ask_all(
        self, connection: Connection, given: list[dict[str, Any]], seeds: np.ndarray, n: int
    ) -> list[tuple[list[Choice], int | None]]:
        from infalign.policies.openai_server.asking import Asker

        k = seeds.shape[1]
        starts = range(0, k, n)
        async with (
            Asker.opened(connection, serial=self._dialect.serial) as asker,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                [
                    group.create_task(self._ask(asker, prompt, row[j:], min(n, k - j), place))
                    for j in starts
                ]
                for place, (prompt, row) in enumerate(zip(given, seeds, strict=True))
            ]
        answers = [[task.result() for task in row] for row in tasks]
        return [
            ([choice for answer in row for choice in answer.choices], row[0].prompt_tokens)
            for row in answers
        ]

    async def _ask(
        self, asker: "Asker", prompt: dict[str, Any], seeds: np.ndarray, n: int, place: int
    ) -> Answer:
        """One request. A prompt's requests go to one server first: it has the prompt cached."""
        longest = prompt.get("max_tokens", self._sampling.max_new_tokens)
        body = self._body | prompt | {"seed": int(seeds[0])}
        if n > 1:
            body["n"] = n
        return await asker.ask(self._api, body, place, lambda text: answer_of(text, n, longest))

    def _given(self, prompt: str, beginning: tuple[int, ...] = ()) -> dict[str, Any]:
        """A prompt, and what has been answered so far, as a request names it."""
        if self._api == "chat":
            return {"messages": messages_of(prompt)}
        if self._codec is None:
            return {"prompt": prompt}
        if self._exact:
            return {"prompt": [*self._codec.encode(prompt), *beginning]}
        return {"prompt": self._codec.written(prompt)}

    def _response(
        self, choice: Choice, beginning: tuple[int, ...] = (), cap: int | None = None
    ) -> Response:
        at_one = self._log_probs == "sampling" or self._sampling.temperature == 1.0
        log_prob = choice.log_prob if at_one else math.nan
        if self._exact and self._codec is not None:
            if not choice.token_ids:
                raise ValueError(
                    f"the server of {self.model} tells no token ids though asked to "
                    f"(return_token_ids): it is no {self._server}, or an older one. Start a later "
                    "version, or name the kind of `server` that it is."
                )
            longest = self._sampling.max_new_tokens
            ids = (*beginning, *choice.token_ids)
            # What breaks off before all the tokens it was allowed is refused.
            cut = longest if len(choice.token_ids) == cap else None
            response = self._codec.response(ids, log_prob, cut)
            self._codec.check(response, longest, f"of {self.model} on its server")
            return response
        cuts = [at for stop in self._sampling.stop if (at := choice.text.find(stop)) >= 0]
        if cuts:
            return Response(choice.text[: min(cuts)], choice.token_ids, log_prob, "stop")
        return Response(choice.text, choice.token_ids, log_prob, choice.finish_reason)
