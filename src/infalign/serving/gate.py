"""So many answers at once, so many waiting; who comes beyond that is told when to come again."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import final

from infalign.serving.metrics import Metrics
from infalign.serving.refusals import Refused

__all__ = ["Gate"]


@final
class Gate:
    """Bounded concurrency with a bounded queue, first come, first served.

    Args:
        concurrency: answers found at once. ≥ 1.
        queue: requests waiting. ≥ 0.
        metrics: told who is where.
    """

    def __init__(self, concurrency: int, queue: int, metrics: Metrics) -> None:
        self._places, self._concurrency = asyncio.Semaphore(concurrency), concurrency
        self._queue, self._waiting, self._seconds = queue, 0, 1.0
        self._metrics = metrics

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among those being answered, for the block.

        Raises:
            Refused: with 429, where the queue is full.
        """
        if self._places.locked() and self._waiting >= self._queue:
            raise Refused(
                429,
                f"{_counted(self._concurrency, 'answer is', 'answers are')} being found and "
                f"{_counted(self._waiting, 'request waits', 'requests wait')}; ask again later.",
                "rate_limit_error",
                code="queue_full",
                retry_after=self.retry_after(),
            )
        self._moved(1)
        try:
            await self._places.acquire()
        finally:
            self._moved(-1)
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            with self._metrics.answering.track_inprogress():
                yield
            self._seconds += 0.1 * (clock() - start - self._seconds)  # of late, roughly
        finally:
            self._places.release()

    def retry_after(self) -> int:
        """Seconds until the queue is about empty, if answers take as long as of late."""
        return max(1, math.ceil(self._seconds * (self._waiting + 1) / self._concurrency))

    def _moved(self, by: int) -> None:
        self._waiting += by
        self._metrics.waiting.set(self._waiting)


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
