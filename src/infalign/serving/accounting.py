"""What becomes of a request: counted, timed and logged once, when its last byte is known."""

import contextvars
import logging
import time
import uuid
from typing import final

from infalign.serving.metrics import Metrics

__all__ = ["LEFT", "Account", "request_id"]

_log = logging.getLogger(__name__)
_current: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="-")

LEFT = 499
"""What proxies log where a client left; nobody receives it."""


def request_id() -> str:
    """Of the request being answered here and in the tasks it began; "-" outside of any."""
    return _current.get()


@final
class Account:
    """One request, from its arrival on.

    Args:
        metrics: told of its end.
        method: of HTTP.
        path: as it is written in the application: no query, nobody's words.
    """

    def __init__(self, metrics: Metrics, method: str, path: str) -> None:
        self._metrics, self._method, self._path = metrics, method, path
        self._start, self.ident = time.perf_counter(), uuid.uuid4().hex
        _current.set(self.ident)

    def left(self) -> int:
        """Its client left; the status of that."""
        self._metrics.disconnects.inc()
        return LEFT

    def ended(self, status: int) -> None:
        """It is over. A stream that ends in an error has the error's status, whatever was sent."""
        seconds = time.perf_counter() - self._start
        self._metrics.requests.labels(self._path, str(status)).inc()
        self._metrics.seconds.labels(self._path).observe(seconds)
        _log.info("%s %s %d %.3f s %s", self._method, self._path, status, seconds, self.ident)
