"""How the server stops: it finishes what was begun, or, told a second time, says so and ends."""

import asyncio
import logging
import socket
from types import FrameType
from typing import final

import uvicorn

__all__ = ["GRACE", "Stoppable"]

_log = logging.getLogger(__name__)

GRACE = 30
"""Seconds within which answers begun are finished when the server is to stop."""


@final
class Stoppable(uvicorn.Server):
    """A server whose second signal ends its answers, each with an error its client can read.

    The one it extends would drop them, and write a traceback for each.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _is_hurried = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until a signal comes."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops listening, the second ends answers, the third everything."""
        if self._loop is None or self._is_hurried:
            super().handle_exit(sig, frame)
        elif self.should_exit:
            self._is_hurried = True
            self._loop.call_soon_threadsafe(self._end_answers)
        else:
            _log.info(
                "stopping: answers begun have %d s to be finished; Ctrl-C again ends them now",
                GRACE,
            )
            super().handle_exit(sig, frame)

    def _end_answers(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()
