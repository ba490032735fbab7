"""Addresses of servers and names of keys' variables: what can be one, refused without showing keys.

The experiment file and a server's connection ask the same questions, so that an address which
cannot work is refused when the file is read, not after a model has been loaded.
"""

import re
import urllib.parse
from collections.abc import Sequence

__all__ = ["require_addresses", "require_variable"]

_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
"""A name, an IPv4 address, or an IPv6 address without its brackets."""
_FORM = "an address is http://host:port/v1 or https://host/v1"


def require_addresses(urls: Sequence[str], option: str = "base_urls") -> None:
    """Refuse what is no address of a server.

    Args:
        urls: at least one.
        option: their name in the message.

    Raises:
        ValueError: none; not `http` or `https`, no host, a port outside 1 … 65535, or something
            that may be secret (user, password, query), which the message does not repeat.

    Example:
        >>> require_addresses(["http://127.0.0.1:8000/v1", "https://[::1]/v1"])
        >>> require_addresses(["http://127.0.0.1:99999/v1"])
        Traceback (most recent call last):
            ...
        ValueError: base_urls has 'http://127.0.0.1:99999/v1', whose port is not within 1 … 65535; \
an address is http://host:port/v1 or https://host/v1
    """
    if not urls:
        raise ValueError(f"{option} is empty; give at least one: {_FORM}")
    for place, url in enumerate(urls):
        if any(mark in url for mark in "@?#"):  # asked first: no other message may show it
            raise ValueError(
                f"{option}[{place}] holds a user, a password or a key (it has '@', '?' or '#', and "
                "is not shown here); addresses are stored and shown. Put the key into an "
                f"environment variable and name that in api_key_env; {_FORM}"
            )
        if fault := _fault(url):
            raise ValueError(f"{option} has {url!r}, {fault}; {_FORM}")


def _fault(url: str) -> str:
    """What is wrong with an address, as the end of "it has …, "; nothing where it is one."""
    if not url.startswith(("http://", "https://")):
        return "which begins with neither http:// nor https://"
    if not url.isprintable() or not url.isascii() or " " in url or "\\" in url:
        return "which has a character that no address has"
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:  # brackets without an IPv6 address in them
        return f"which cannot be read ({error})"
    if not host or not _HOST.fullmatch(host):
        return "which names no host"
    try:
        port = parts.port
    except ValueError:
        port = 0
    return "whose port is not within 1 … 65535" if port == 0 else ""


def require_variable(name: str | None, option: str = "api_key_env") -> None:
    """Refuse what is no name of an environment variable, without showing it: it may be the key.

    Args:
        name: None where no key is asked for.
        option: its name in the message.

    Raises:
        ValueError: it is no name.

    Example:
        >>> require_variable("MY_SERVER_KEY")
    """
    if name is not None and not _VARIABLE.fullmatch(name):
        raise ValueError(
            f"{option} is no name of an environment variable (letters, digits and _, and no digit "
            "first). It is not shown here, because it may be the key itself: put the key into a "
            f"variable, such as MY_SERVER_KEY, and name that; `{option}: MY_SERVER_KEY`"
        )
