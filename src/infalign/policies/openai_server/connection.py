"""Where servers are, how patiently they are asked, and with which key: settings, no client."""

import dataclasses
import os

from infalign.addresses import require_addresses, require_variable

__all__ = ["Connection"]


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
        require_addresses(self.base_urls)
        require_variable(self.api_key_env)
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
