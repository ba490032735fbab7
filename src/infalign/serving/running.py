"""The application on a port."""

import ipaddress
import logging
import os
import sys
from collections.abc import Iterable
from typing import final

from infalign.protocols import Reward
from infalign.serving.settings import Serving

__all__ = ["Redacting", "serve"]

_log = logging.getLogger(__name__)


def serve(
    serving: Serving,
    reward: Reward | None,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    log_level: str = "info",
) -> None:
    """Serve until interrupted; answers begun are finished, at most for half a minute, or until
    interrupted again: then their clients are told with 503.

    Args:
        serving: the settings.
        reward: chooses.
        host: address listened on.
        port: 0 for any free one.
        log_level: of the log on standard error, in which no key stands.

    Raises:
        ValueError: the procedure needs a reward and none came.
        ImportError: a package of the extra `serve` is not installed.
        OSError: the port is taken.
    """
    from infalign.serving.app import create_app

    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise ImportError(
            "serving needs the package 'uvicorn', which is not installed: "
            "pip install 'infalign[serve]'"
        ) from error
    from infalign.serving.stopping import GRACE, Stoppable

    app = create_app(serving, reward)
    _log_to_stderr(log_level, _secrets(serving))
    _log.info("%s in front of %s", serving.made().name, ", ".join(serving.upstream.base_urls))
    if serving.key_env is None and not _is_loopback(host):
        _log.warning("%s can be reached from elsewhere and no key is asked for", host)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,  # ours says as much, and neither query strings nor headers
        log_config=None,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    Stoppable(config).run()


@final
class Redacting(logging.Formatter):
    """Takes secrets out of whatever is logged, tracebacks included, wherever it comes from.

    Example:
        >>> record = logging.makeLogRecord({"msg": "key %s", "args": ("sk-1",)})
        >>> Redacting("%(message)s", ["sk-1"]).format(record)
        'key ***'
    """

    def __init__(self, written: str, secrets: Iterable[str]) -> None:
        super().__init__(written)
        self._secrets = [secret for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secrets(serving: Serving) -> list[str]:
    own = [key.decode() for key in serving.client_keys()]
    name = serving.upstream.api_key_env
    return own if name is None else [*own, os.environ.get(name, "")]


def _log_to_stderr(level: str, secrets: Iterable[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(message)s", secrets))
    for name in ("infalign", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level.upper())
