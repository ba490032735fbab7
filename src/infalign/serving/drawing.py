"""What a procedure wishes to see, drawn from the upstream: one object per request."""

import asyncio
import dataclasses
import json
import logging
import math
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar, final

import numpy as np

from infalign.decoding import Draw
from infalign.policies.openai_server.answers import (
    Answer,
    BadAnswer,
    Choice,
    OneAtATime,
    answer_of,
    excerpt,
)
from infalign.protocols import Response
from infalign.serving.continuing import continued, require_continuable, whole_text
from infalign.serving.metrics import Metrics
from infalign.serving.refusals import Refused
from infalign.serving.requests import Api, Asked
from infalign.serving.settings import Serving
from infalign.serving.upstream import Upstream

__all__ = ["Drawing", "Usage"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_UNBOUNDED = 2**31
_SEEDS = 2**31


@dataclasses.dataclass
class Usage:
    """What the upstream counted, over all requests made for one answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    candidates: int = 0
    is_told: bool = False
    """Whether the upstream counts at all."""


@dataclasses.dataclass(frozen=True)
class _Drawn:
    choice: Choice
    raw: Mapping[str, Any]
    """The choice as it came."""


@final
class Drawing:
    """Serves the draws of one request.

    Args:
        upstream: asked.
        serving: in which words.
        asked: what the client wants.
        continues: whether the procedure goes on from beginnings, so that every token counts.
        rng: seeds of the draws, where the client gave one; else the upstream's own are used.
        metrics: told what was drawn.
    """

    def __init__(
        self,
        upstream: Upstream,
        serving: Serving,
        asked: Asked,
        continues: bool,
        rng: np.random.Generator,
        metrics: Metrics,
    ) -> None:
        self._continues = continues
        self._upstream, self._asked, self._rng, self._metrics = upstream, asked, rng, metrics
        self._each = serving.n_per_request if serving.dialect.several else 1
        dialect = dict(serving.dialect.whole_vocabulary)
        if serving.dialect.token_ids:
            dialect["return_token_ids"] = True
        self._body = dialect | dict(asked.body)
        self._raws: dict[int, tuple[Response, Mapping[str, Any]]] = {}
        self._prompt_ids: list[int] | None = None
        self.usage = Usage()
        self.model: str | None = None
        """As the upstream calls it."""

    def raw(self, response: Response) -> Mapping[str, Any] | None:
        """The choice that became this very response, as the upstream gave it."""
        found = self._raws.get(id(response))
        return None if found is None else found[1]

    async def __call__(self, wish: Draw) -> list[list[Response]]:
        """For each beginning k responses.

        Raises:
            Refused: the upstream gives none, or the wish needs token ids it does not tell.
        """
        if wish.is_whole and not self._continues:
            rows = [self._several(self._asked.api, self._body, wish.k) for _ in wish.beginnings]
            drawn = await _together(rows)
            return [[self._response(one) for one in row] for row in drawn]
        require_continuable(self._asked, wish)
        rows = [self._begun(beginning, wish) for beginning in wish.beginnings]
        return await _together(rows)

    # --- whole responses ---

    def _response(self, drawn: _Drawn) -> Response:
        choice = drawn.choice
        response = Response(choice.text, choice.token_ids, math.nan, choice.finish_reason)
        self._raws[id(response)] = response, drawn.raw
        return response

    async def _several(self, api: Api, body: Mapping[str, Any], k: int) -> list[_Drawn]:
        """K independent responses to one body, in as few requests as the upstream knows."""
        seeds = self._seeds(k)
        starts = range(0, k, self._each)
        parts = await _together(
            [self._part(api, body, min(self._each, k - start), seeds[start:]) for start in starts]
        )
        return [one for part in parts for one in part]

    async def _part(
        self, api: Api, body: Mapping[str, Any], n: int, seeds: Sequence[int | None]
    ) -> list[_Drawn]:
        drawn: list[_Drawn] = []
        if n > 1 and self._upstream.gives_several:
            try:
                drawn = await self._once(api, body, n, seeds[0])
            except Refused as refused:
                if refused.status not in (400, 422):
                    raise
            if len(drawn) == n:
                return drawn
        singles = [self._once(api, body, 1, seed) for seed in seeds[len(drawn) : n]]
        rest = [one for row in await _together(singles) for one in row]
        if n > 1 and self._upstream.gives_several:
            _log.warning(
                "the upstream %s draws one response a request: `n` is not used any more",
                self._upstream.shown,
            )
            self._upstream.gives_several = False
        return [*drawn, *rest]

    async def _once(
        self, api: Api, body: Mapping[str, Any], n: int, seed: int | None
    ) -> list[_Drawn]:
        """One request: n responses, or one where the upstream knows no n."""
        further: dict[str, Any] = {} if n == 1 else {"n": n}
        if seed is not None:
            further["seed"] = seed
        text, where = await self._upstream.ask(api, {**body, **further})
        answer = _read(text, n, self._asked.longest or _UNBOUNDED, where)
        data = json.loads(text)
        self._counted(data, answer)
        raws = sorted(data["choices"], key=lambda one: one["index"])
        return [_Drawn(*both) for both in zip(answer.choices, raws, strict=True)]

    def _counted(self, data: Mapping[str, Any], answer: Answer) -> None:
        usage = data.get("usage") or {}
        written = usage.get("completion_tokens")
        if written is None and all(choice.token_ids for choice in answer.choices):
            written = sum(len(choice.token_ids) for choice in answer.choices)
        spent = self.usage
        spent.is_told |= written is not None
        spent.completion_tokens += written or 0
        spent.prompt_tokens += answer.prompt_tokens or 0
        spent.candidates += len(answer.choices)
        self._metrics.candidates.inc(len(answer.choices))
        self._metrics.tokens.labels("completion").inc(written or 0)
        self._metrics.tokens.labels("prompt").inc(answer.prompt_tokens or 0)
        model = data.get("model")
        self.model = model if isinstance(model, str) else self.model
        ids = data.get("prompt_token_ids") or data["choices"][0].get("prompt_token_ids")
        if self._prompt_ids is None and isinstance(ids, list):
            self._prompt_ids = ids

    def _seeds(self, k: int) -> list[int | None]:
        """Each candidate has its own: of one seed the upstream would draw the same n times."""
        if self._asked.seed is None:
            return [None] * k
        return self._rng.integers(_SEEDS, size=k).tolist()

    # --- what goes on from a beginning ---

    async def _begun(self, beginning: tuple[int, ...], wish: Draw) -> list[Response]:
        api, body, cap = continued(self._asked, self._body, self._prompt_ids, beginning, wish.limit)
        drawn = await self._several(api, body, wish.k)
        return list(await _together([self._joined(beginning, one, cap) for one in drawn]))

    async def _joined(self, beginning: tuple[int, ...], drawn: _Drawn, cap: int) -> Response:
        """The whole response: the beginning and what was drawn after it."""
        choice = drawn.choice
        if not choice.token_ids:
            raise Refused(502, "the upstream tells no token ids though asked to.", "upstream_error")
        ids = (*beginning, *choice.token_ids)
        is_whole = choice.finish_reason == "stop" or len(choice.token_ids) >= cap
        reason = choice.finish_reason if is_whole else "limit"
        text = choice.text
        if beginning:
            text = await whole_text(self._upstream, self._asked, ids, choice, drawn.raw)
        response = Response(text, ids, math.nan, reason)
        if not beginning:
            self._raws[id(response)] = response, drawn.raw
        return response


def _read(text: str, n: int, longest: int, where: str) -> Answer:
    try:
        try:
            return answer_of(text, n, longest)
        except OneAtATime:
            return answer_of(text, 1, longest)
    except BadAnswer as fault:
        _log.warning(
            "the answer of the upstream %s is malformed: %s; %s", where, fault, excerpt(text)
        )
        raise Refused(
            502,
            f"the upstream's answer is malformed: {fault}. Ask again, or tell whoever runs this "
            "server.",
            "upstream_error",
        ) from None


async def _together(parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them at once; the first that fails ends the others, and its reason is told."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
