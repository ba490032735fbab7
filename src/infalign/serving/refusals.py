"""What a client is told when there is no answer: a status, and OpenAI's error JSON."""

from typing import Any, final

__all__ = ["Refused", "refused_request"]


@final
class Refused(Exception):
    """There is no answer, and this is why.

    Args:
        status: of HTTP.
        message: for whoever sent the request.
        kind: OpenAI's `type`.
        code: OpenAI's `code`.
        param: the field at fault.
        retry_after: seconds after which asking again makes sense.

    Example:
        >>> Refused(429, "full", "rate_limit_error", retry_after=2).headers()
        {'retry-after': '2'}
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "server_error",
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: str | int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.code, self.param, self.retry_after = code, param, retry_after

    def body(self) -> dict[str, Any]:
        """What official clients read."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """That belong to the status."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


def refused_request(message: str, param: str | None = None, status: int = 400) -> Refused:
    """The client's own fault."""
    return Refused(status, message, "invalid_request_error", param=param)
