"""The application: OpenAI's endpoints, health, metrics."""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, final

from infalign.protocols import Reward
from infalign.serving.accounting import LEFT, Account, request_id
from infalign.serving.answers import Found, event
from infalign.serving.finding import Finder
from infalign.serving.refusals import Refused, refused_request
from infalign.serving.requests import Api, asked_of, body_within
from infalign.serving.settings import Serving

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ModuleNotFoundError as error:
    raise ImportError(
        "serving needs the package 'starlette', which is not installed: "
        "pip install 'infalign[serve]'"
    ) from error

from infalign.serving.watching import EventStream, Gone, Watched

__all__ = ["create_app"]

_log = logging.getLogger(__name__)
_READY_SECONDS = 5.0
_STOPPING = Refused(503, "the server is being stopped; ask again later.", code="stopping")

Handler = Callable[[Request], Awaitable[Response]]


def create_app(serving: Serving, reward: Reward | None) -> Starlette:
    """The server as an ASGI application.

    Args:
        serving: the settings.
        reward: chooses; called from one thread. None for procedures that need none.

    Raises:
        ValueError: the procedure needs a reward and none came.
    """
    front = _Front(Finder(serving, reward))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(front.finder.upstream.opened())
            if front.finder.scorer is not None:
                await stack.enter_async_context(front.finder.scorer.opened())
            yield

    routes = [
        front.route("/v1/chat/completions", front.chat, "POST"),
        front.route("/v1/completions", front.completions, "POST"),
        front.route("/v1/models", front.models),
        front.route("/v1/models/{model:path}", front.model),
        Route("/health", front.health),
        Route("/ready", front.ready),
        Route("/metrics", front.metrics),
    ]
    handlers: Any = {HTTPException: _no_such_thing}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


@final
class _Front:
    """The endpoints."""

    def __init__(self, finder: Finder) -> None:
        self.finder, self.serving = finder, finder.serving

    def route(self, path: str, handler: Handler, method: str = "GET") -> Route:
        """The handler behind the key, its refusals as JSON, counted and logged."""

        async def endpoint(request: Request) -> Response:
            account = Account(self.finder.metrics, method, path)
            request.state.account = account
            try:
                self._require_key(request)
                response = await handler(request)
            except (Gone, ClientDisconnect):
                response = Response(status_code=account.left())
            except asyncio.CancelledError:  # the server ends; the connection is still there
                response = _refusal(_STOPPING)
            except Exception as error:
                response = _refusal(_told(error))
            response.headers["x-request-id"] = account.ident
            if not isinstance(response, EventStream):  # which ends later, and says so itself
                account.ended(response.status_code)
            return response

        return Route(path, endpoint, methods=[method])

    async def chat(self, request: Request) -> Response:
        """`/v1/chat/completions`."""
        return await self._answer(request, "chat")

    async def completions(self, request: Request) -> Response:
        """`/v1/completions`."""
        return await self._answer(request, "completions")

    async def models(self, request: Request) -> Response:
        """What the upstream serves."""
        del request
        return JSONResponse({"object": "list", "data": await self.finder.upstream.models()})

    async def model(self, request: Request) -> Response:
        """One of them."""
        wanted = request.path_params["model"]
        for card in await self.finder.upstream.models():
            if card.get("id") == wanted:
                return JSONResponse(card)
        raise refused_request(f"the upstream has no model {wanted!r}.", "model", status=404)

    async def health(self, request: Request) -> Response:
        """Whether this process lives."""
        del request
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Whether requests can be answered: the upstream can be reached and takes our key."""
        del request
        try:
            await self.finder.upstream.models(_READY_SECONDS)
        except Refused as refused:
            body = {"status": "not ready", "reason": refused.message}
            return JSONResponse(body, 503)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        del request
        metrics = self.finder.metrics
        return Response(metrics.text(), media_type=metrics.media_type)

    # --- answers ---

    async def _answer(self, request: Request, api: Api) -> Response:
        limits = self.serving.limits
        declared = request.headers.get("content-length")
        raw = await body_within(request.stream(), declared, limits.body_bytes)
        asked = asked_of(raw, api, self.serving.model, limits.candidates)
        watched = Watched(request, self.finder(asked))
        is_handed_on = False
        try:
            is_done = await watched.done_within(limits.keep_alive if asked.stream else None)
            if not asked.stream:
                found = watched.result()
                return JSONResponse(found.body(), headers=found.headers())
            # What is known by now goes into the headers: refusals keep their status.
            headers = watched.result().headers() if is_done else {}
            is_handed_on = True
            return EventStream(self._streamed(watched, request.state.account), headers)
        finally:
            if not is_handed_on:
                await watched.close()

    async def _streamed(self, watched: Watched[Found], account: Account) -> AsyncIterator[bytes]:
        status = LEFT  # where the stream is closed before its end
        try:
            while not await watched.done_within(self.serving.limits.keep_alive):
                yield b": choosing\n\n"
            for piece in watched.result().pieces():
                yield event(piece)
            status = 200
            yield event("[DONE]")
        except Gone:
            status = account.left()
        except (Exception, asyncio.CancelledError) as error:
            is_stopped = isinstance(error, asyncio.CancelledError)
            refused = _STOPPING if is_stopped else _told(error)
            status = refused.status
            yield event(refused.body())
            yield event("[DONE]")
        finally:
            account.ended(status)
            await watched.close()

    # --- who asks ---

    def _require_key(self, request: Request) -> None:
        keys = self.serving.client_keys()
        if not keys:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Every key is compared, in time that does not depend on where the first difference is.
        fits = [hmac.compare_digest(given.strip().encode(), key) for key in keys]
        if scheme.lower() != "bearer" or not any(fits):
            raise Refused(
                401,
                "the key is missing or wrong; send it as `Authorization: Bearer KEY`.",
                "invalid_request_error",
                code="invalid_api_key",
            )


def _told(error: BaseException) -> Refused:
    """What a client is told of an error; of a defect only that there was one."""
    if isinstance(error, Refused):
        return error
    _log.error("request %s failed: a defect", request_id(), exc_info=error)
    return Refused(500, "the server failed; its log says why.")


def _refusal(refused: Refused) -> Response:
    return JSONResponse(refused.body(), refused.status, headers=refused.headers())


async def _no_such_thing(request: Request, error: HTTPException) -> Response:
    del request
    message = f"{error.detail}: POST /v1/chat/completions or /v1/completions."
    return _refusal(refused_request(message, status=error.status_code))
