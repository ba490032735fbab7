"""The model behind the procedure: asked by the official client, its faults made ours."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, final

from infalign.policies.openai_server import Connection
from infalign.serving.metrics import Metrics
from infalign.serving.refusals import Refused, refused_request
from infalign.serving.requests import Api

try:
    import openai
except ModuleNotFoundError as error:
    raise ImportError(
        "serving asks the upstream by the package 'openai', which is not installed: "
        "pip install 'infalign[serve]'"
    ) from error

__all__ = ["Upstream"]

_log = logging.getLogger(__name__)
_PASSED = (400, 404, 413, 422)
"""The request's own fault: the client is told what the upstream said."""
_LOOK_SECONDS = 5.0
_LATER = "ask again later, or tell whoever runs this server"


@final
class Upstream:
    """Clients of all upstream servers, asked in turn; use :meth:`opened`.

    Args:
        connection: where, with which key, for how long.
        metrics: told of each request.
    """

    def __init__(self, connection: Connection, metrics: Metrics) -> None:
        self._connection, self._metrics = connection, metrics
        self._slots = asyncio.Semaphore(connection.concurrency)
        self._clients: list[Any] = []
        self._turn = 0
        self.gives_several = True
        """Whether `n` responses come of one request, as far as is known."""
        self.shown = ", ".join(connection.base_urls)
        """All addresses, for the log."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Clients are open while the block runs."""
        settings = self._connection
        timeout = openai.Timeout(settings.read_timeout, connect=settings.connect_timeout)
        async with contextlib.AsyncExitStack() as stack:
            for url in settings.base_urls:
                client = openai.AsyncOpenAI(
                    base_url=url,
                    api_key=settings.key(),
                    timeout=timeout,
                    max_retries=settings.retries,
                )
                self._clients.append(await stack.enter_async_context(client))
            look = asyncio.create_task(self._look())
            try:
                yield
            finally:
                look.cancel()
                await asyncio.gather(look, return_exceptions=True)

    async def _look(self) -> None:
        """One warning of servers that are not there when this one starts; they may come later."""

        async def fault_of(client: Any) -> str | None:
            try:
                await client.with_options(timeout=_LOOK_SECONDS, max_retries=0).models.list()
            except openai.APIConnectionError as fault:
                return f"{_shown(client)} cannot be reached ({fault.__cause__ or fault})"
            except openai.APIStatusError as fault:
                if fault.status_code in (401, 403):
                    return f"{_shown(client)} refuses our key (status {fault.status_code})"
            except Exception:  # it is there; what it keeps in its list is of no concern
                return None
            return None

        found = await asyncio.gather(*map(fault_of, self._clients))
        if faults := [fault for fault in found if fault is not None]:
            _log.warning(
                "the upstream %s; requests are taken and fail until it can be used",
                "; ".join(faults),
            )

    async def ask(self, api: Api, body: Mapping[str, Any]) -> tuple[str, str]:
        """The text of a whole answer, and the address it came from.

        Args:
            api: which resource.
            body: the request as it is sent.

        Raises:
            Refused: there is none; another server was tried where one could not be reached.
        """

        async def create(client: Any) -> tuple[str, str]:
            resource = client.chat.completions if api == "chat" else client.completions
            # By the side of the client's own arguments: any field a request has is passed on.
            given = {"messages": []} if api == "chat" else {"prompt": ""}
            raw = await resource.with_raw_response.create(
                model=body["model"], **given, extra_body=dict(body)
            )
            return raw.text, _shown(client)

        return await self._asked(create)

    async def detokenized(self, model: str, tokens: list[int]) -> str:
        """The text of token ids, by vLLM's own endpoint.

        Raises:
            Refused: there is none.
        """

        async def post(client: Any) -> str:
            root = str(client.base_url).rstrip("/").removesuffix("/v1")
            body = {"model": model, "tokens": tokens}
            answer = await client.post(f"{root}/detokenize", cast_to=object, body=body)
            text = answer.get("prompt") if isinstance(answer, dict) else None
            if not isinstance(text, str):
                raise Refused(502, "the upstream told no text of token ids.", "upstream_error")
            return text

        return await self._asked(post)

    async def models(self, seconds: float | None = None) -> list[dict[str, Any]]:
        """What the upstream serves; nothing where it keeps no list.

        Raises:
            Refused: it cannot be reached, or refuses our key.
        """

        async def listed(client: Any) -> list[dict[str, Any]]:
            hasty = (
                client if seconds is None else client.with_options(timeout=seconds, max_retries=0)
            )
            try:
                raw = await hasty.models.with_raw_response.list()
                data = json.loads(raw.text)["data"]
                return [one for one in data if isinstance(one, dict)]
            except openai.NotFoundError:
                return []
            except (ValueError, KeyError, TypeError):
                return []

        return await self._asked(listed)

    async def _asked(self, question: Any) -> Any:
        """The answer of the first server, in turn, that can be reached."""
        async with self._slots:
            clients = self._clients[self._turn :] + self._clients[: self._turn]
            self._turn = (self._turn + 1) % len(self._clients)
            for place, client in enumerate(clients):
                start = time.perf_counter()
                try:
                    answer = await question(client)
                    self._metrics.upstream.labels("200").inc()
                    return answer
                except openai.APIError as fault:
                    is_last = place == len(clients) - 1
                    refusal = self._refusal(fault, _shown(client))
                    self._metrics.upstream.labels(_status(fault)).inc()
                    if is_last or refusal.status not in (502, 503):
                        raise refusal from None
                finally:
                    self._metrics.upstream_seconds.observe(time.perf_counter() - start)
        raise AssertionError("unreachable")

    def _refusal(self, fault: openai.APIError, where: str) -> Refused:
        """What our client is told of an upstream's fault; the address is for the log only."""
        if isinstance(fault, openai.APITimeoutError):
            _log.warning("the upstream %s did not answer in time", where)
            return _late()
        if isinstance(fault, openai.APIConnectionError):
            _log.warning("the upstream %s cannot be reached: %s", where, fault.__cause__ or fault)
            return _failed("the upstream cannot be reached")
        if not isinstance(fault, openai.APIStatusError):
            _log.warning("the answer of the upstream %s is malformed: %s", where, fault)
            return _failed("the upstream's answer is malformed")
        status, said = fault.status_code, self._said(fault)
        if status in (401, 403):
            # Upstreams repeat a wrong key in what they say, so it goes nowhere.
            _log.error("the upstream %s refuses our key (status %d)", where, status)
            return _failed(
                "the upstream refuses this server's key", "tell whoever runs this server"
            )
        if status == 429:
            after = fault.response.headers.get("retry-after", "1")
            return Refused(
                429, f"the upstream is busy: {said}", "rate_limit_error", retry_after=after
            )
        if status in _PASSED:
            return refused_request(f"the upstream refuses the request: {said}", status=status)
        _log.warning("the upstream %s failed with status %d: %s", where, status, said)
        return (
            _late() if status in (408, 504) else _failed(f"the upstream failed (status {status})")
        )

    def _said(self, fault: openai.APIStatusError) -> str:
        """The upstream's message, short, and without our key should it be there."""
        body = fault.body
        error = body.get("error", body) if isinstance(body, dict) else body
        said = error.get("message", error) if isinstance(error, dict) else error
        text = " ".join(str(said or fault.response.text).split())
        if self._connection.api_key_env is not None:
            text = text.replace(self._connection.key(), "***")
        return text[:500]


def _late() -> Refused:
    return Refused(
        504,
        "the upstream did not answer in time; ask again later, or for less (max_tokens, n).",
        "upstream_timeout",
    )


def _failed(what: str, remedy: str = _LATER) -> Refused:
    return Refused(502, f"{what}; {remedy}.", "upstream_error")


def _shown(client: Any) -> str:
    """The address of a server; it holds no secret, or it would have been refused."""
    return str(client.base_url).rstrip("/")


def _status(fault: openai.APIError) -> str:
    if isinstance(fault, openai.APIStatusError):
        return str(fault.status_code)
    return "timeout" if isinstance(fault, openai.APITimeoutError) else "unreachable"
