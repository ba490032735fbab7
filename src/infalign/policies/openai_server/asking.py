"""Asking several servers at once, and again when one fails.

The official client retries a fault on its own server, with exponential backoff, jitter and the
server's `Retry-After`. Around it, a request goes on to the next server, round after round, until
`patience` has passed: long enough for a server to be restarted. What asking again cannot mend (a
key, a model's name, a prompt too long) is refused at once.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from infalign.policies.openai_server.answers import BadAnswer, excerpt
from infalign.policies.openai_server.connection import Connection

try:
    import anyio.from_thread  # of the client's own
    import openai
except ModuleNotFoundError as error:
    raise ImportError(
        "asking a server needs the package 'openai', which is not installed: "
        "pip install 'infalign[server]'"
    ) from error

__all__ = ["Asker", "run"]

T = TypeVar("T")

_REST = 30.0
"""Seconds for which a server that failed is asked only if no other is left."""
_LONGEST_WAIT = 30.0
"""Seconds between two rounds, at most, unless a server asks for more."""


class Asker:
    """Clients of all servers, within one event loop; use :meth:`opened`."""

    def __init__(
        self, connection: Connection, clients: Mapping[str, Any], serial: bool = False
    ) -> None:
        self.connection = connection
        self.clients = clients
        self._slots = asyncio.Semaphore(connection.concurrency)
        each = 1 if serial else connection.concurrency
        self._turns = {url: asyncio.Semaphore(each) for url in clients}
        self._failed: dict[str, float] = {}
        self._jitter = random.Random()

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, connection: Connection, *, serial: bool = False
    ) -> AsyncIterator["Asker"]:
        """Open the clients and close them again, whatever happens.

        Args:
            connection: where and how.
            serial: one request at a time on each server.
        """
        timeout = openai.Timeout(connection.read_timeout, connect=connection.connect_timeout)
        async with contextlib.AsyncExitStack() as stack:
            clients = {}
            for url in dict.fromkeys(connection.base_urls):
                client = openai.AsyncOpenAI(
                    base_url=url,
                    api_key=connection.key(),
                    timeout=timeout,
                    max_retries=connection.retries,
                )
                clients[url] = await stack.enter_async_context(client)
            yield cls(connection, clients, serial)

    async def ask(self, api: str, body: dict[str, Any], first: int, read: Callable[[str], T]) -> T:
        """What `read` makes of an answer, from the first server that gives a whole one.

        Args:
            api: `completions` or `chat`.
            body: the request.
            first: which server is asked first; others follow where it fails.
            read: answer → result; raises BadAnswer for one that should be asked for again.

        Raises:
            ConnectionError: no whole answer within `patience`.
            PermissionError: the key is refused.
            ValueError: the request is refused, or answers stay malformed.
        """
        async with self._slots:
            clock = asyncio.get_running_loop().time
            start, malformed = clock(), 0
            for attempt in itertools.count():
                url = self._choice(first + attempt, clock())
                try:
                    return await self._once(url, api, body, read)
                except (openai.APIConnectionError, openai.APIStatusError) as fault:
                    refuse_permanent(url, fault)
                    wait, why = _retry_after(fault), described(fault)
                except BadAnswer as fault:
                    wait, why = 0.0, str(fault)
                    malformed += 1
                    if malformed > self.connection.retries:
                        raise ValueError(f"{fault}. Asked {malformed} times.") from None
                self._failed[url] = clock()
                round, others = divmod(attempt + 1, len(self.clients))
                wait = 0.0 if others else max(wait, self._backoff(round - 1))
                if clock() - start + wait > self.connection.patience:
                    raise ConnectionError(
                        f"no answer from {url} ({why}) after {attempt + 1} tries and "
                        f"{clock() - start:.1f} s of {self.connection.patience} s of patience. "
                        "Look at the server, then run the same again; or raise patience."
                    ) from None
                await asyncio.sleep(wait)
            raise AssertionError("unreachable")

    async def _once(self, url: str, api: str, body: dict[str, Any], read: Callable[[str], T]) -> T:
        client = self.clients[url]
        resource = client.chat.completions if api == "chat" else client.completions
        async with self._turns[url]:
            raw = await resource.with_raw_response.create(**body)
        try:
            return read(raw.text)
        except BadAnswer as fault:
            raise BadAnswer(
                f"the answer of {url} is malformed: {fault}; {excerpt(raw.text)}"
            ) from None

    async def models(self, url: str) -> list[dict[str, Any]]:
        """What the server says it serves; nothing where it keeps no list.

        Raises:
            ConnectionError: nobody answers.
            PermissionError: the key is refused.
        """
        try:
            raw = await self.clients[url].models.with_raw_response.list()
            data = raw.http_response.json()["data"]
            return [one for one in data if isinstance(one, dict)]
        except openai.APIConnectionError as fault:
            raise ConnectionError(
                f"no server answers at {url} ({described(fault)}). Start it, wait until it has "
                "loaded its model, or mend base_urls."
            ) from None
        except openai.APIStatusError as fault:
            if fault.status_code in (401, 403):
                refuse_permanent(url, fault)
            return []
        except (ValueError, KeyError, TypeError):
            return []

    def _choice(self, place: int, now: float) -> str:
        """The server whose turn it is among those that did not just fail."""
        urls = list(self.clients)
        well = [url for url in urls if now - self._failed.get(url, -_REST) >= _REST] or urls
        return well[place % len(well)]

    def _backoff(self, round: int) -> float:
        return min(_LONGEST_WAIT, 0.5 * 2**round) * self._jitter.uniform(0.5, 1.0)


def described(fault: Any) -> str:
    """A fault in a few words, with the system's own reason where there is one."""
    if isinstance(fault, openai.APIStatusError):
        return f"status {fault.status_code}: {excerpt(fault.response.text)}"
    if isinstance(fault, openai.APITimeoutError):
        return "timed out"
    return str(fault.__cause__ or fault) or type(fault).__name__


def refuse_permanent(url: str, fault: Any) -> None:
    """Raise what asking again cannot mend.

    Raises:
        PermissionError: the key is refused.
        ValueError: the request is.
    """
    if not isinstance(fault, openai.APIStatusError):
        return
    status = fault.status_code
    if status in (401, 403):
        raise PermissionError(
            f"{url} refuses the key ({described(fault)}). Put the right one into the environment "
            "variable that api_key_env names."
        ) from None
    if status < 500 and status not in (408, 409, 425, 429):
        raise ValueError(f"{url} refuses the request ({described(fault)}).") from None


def _retry_after(fault: Any) -> float:
    if not isinstance(fault, openai.APIStatusError):
        return 0.0
    try:
        return max(0.0, float(fault.response.headers.get("retry-after", 0)))
    except ValueError:  # a date: the client has waited for that
        return 0.0


def run(call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run in an event loop of its own, also from within one; Ctrl-C cancels what is in flight."""
    try:
        with anyio.from_thread.start_blocking_portal() as portal:
            return portal.call(call, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
