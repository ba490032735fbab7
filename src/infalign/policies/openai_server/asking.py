"""Asking several servers at once, and again when one fails.

The official client retries a fault on its own server, with exponential backoff, jitter and the
server's `Retry-After`. Around it, a request goes on to the next server, round after round, until
`patience` has passed: long enough for a server to be restarted. What asking again cannot mend (a
key, a model's name, a prompt too long) is refused at once.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import random
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from infalign.policies.openai_server.answers import BadAnswer, excerpt

try:
    import openai
except ModuleNotFoundError as error:
    raise ImportError(
        "asking a server needs the package 'openai', which is not installed: "
        "pip install 'infalign[server]'"
    ) from error

__all__ = ["Asker", "Connection"]

T = TypeVar("T")

_REST = 30.0
"""Seconds for which a server that failed is asked only if no other is left."""
_LONGEST_WAIT = 30.0
"""Seconds between two rounds, at most, unless a server asks for more."""


@dataclasses.dataclass(frozen=True)
class Connection:
    """Where the servers are, and how patiently they are asked.

    Example:
        >>> Connection(("http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1")).concurrency
        32
    """

    base_urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",)
    """Servers of the same model, each address ending as the protocol's paths begin (`/v1`)."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key. The key itself is kept nowhere."""
    concurrency: int = 32
    """Requests in flight, over all servers. ≥ 1."""
    connect_timeout: float = 10.0
    """Seconds a connection may take. > 0."""
    read_timeout: float = 600.0
    """Seconds a server may be silent within a request: at least its longest answer. > 0."""
    retries: int = 2
    """How often a fault is tried again on the same server before the next is asked. ≥ 0."""
    patience: float = 300.0
    """Seconds a request goes on being tried, over all servers. ≥ 0."""

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ValueError("base_urls is empty; give at least one, such as http://host:8000/v1.")
        for url in self.base_urls:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"base_urls has {url!r}; an address is http://host:port/v1.")
            if parts.username or parts.password or parts.query:
                raise ValueError(
                    f"the address of {parts.hostname} in base_urls holds a key; addresses are "
                    "stored and shown. Put the key into an environment variable, api_key_env."
                )
        for name, least in (("concurrency", 1), ("retries", 0), ("patience", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; at least {least} is needed.")
        if not (self.connect_timeout > 0 and self.read_timeout > 0):
            raise ValueError(
                f"connect_timeout is {self.connect_timeout} and read_timeout "
                f"{self.read_timeout}; both are seconds and must be > 0."
            )

    def key(self) -> str:
        """The key, read anew each time.

        Raises:
            ValueError: the environment variable is not set.
        """
        if self.api_key_env is None:
            return "none"  # never the client's own default: a key meant for somebody else
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise ValueError(
                f"api_key_env names {self.api_key_env}, which is not set in the environment. Set "
                "it to the server's key, or leave api_key_env out where none is asked for."
            )
        return key


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
