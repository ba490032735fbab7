"""Work done for a client who may leave: then it is cancelled, and with it what goes on upstream."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Generic, TypeVar, final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["EventStream", "Gone", "Watched"]

T = TypeVar("T")


@final
class Gone(Exception):
    """The client has left."""


@final
class Watched(Generic[T]):
    """A coroutine that runs as long as its client stays.

    Args:
        request: whose body has been read.
        work: runs at once.
    """

    def __init__(self, request: Request, work: Coroutine[Any, Any, T]) -> None:
        self._work = asyncio.create_task(work)
        self._gone = asyncio.create_task(_left(request.receive))

    async def done_within(self, seconds: float | None) -> bool:
        """Whether the work has ended, or the client has left, before so many seconds."""
        done, _ = await asyncio.wait(
            {self._work, self._gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        return bool(done)

    def result(self) -> T:
        """Of the work, where it has ended.

        Raises:
            Gone: the client left first.
        """
        if not self._work.done():
            raise Gone
        return self._work.result()

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        for task in (self._work, self._gone):
            task.cancel()
        await asyncio.gather(self._work, self._gone, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@final
class EventStream(Response):
    """Server-sent events, whose source is closed however the stream ends."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        self.parts, self.status_code, self.background = parts, 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            async for part in self.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            close = getattr(self.parts, "aclose", None)
            if close is not None:
                await close()
