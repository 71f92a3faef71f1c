"""Errors. Each is a `CloudeError`; each refusal of the server is an `ApiError` of the class of its kind."""

from __future__ import annotations

import json
from typing import Optional


class CloudeError(Exception):
    """Base of all errors of this package."""


class ConnectionFailed(CloudeError):
    """The server cannot be reached, or the connection broke and retries did not help."""


class ProtocolError(CloudeError):
    """A response that is not one of this API."""


class WaitTimeout(CloudeError, TimeoutError):
    """The execution had not ended within the time-out of `wait`. It goes on."""


class ApiError(CloudeError):
    """The server refused a request.

    `status` is the HTTP status, `detail` the error and the way out, `field` the field of the request that is wrong,
    `type` and `title` the kind of error, and `retry_after_s` the seconds after which a retry may succeed.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        type: str = "about:blank",
        title: str = "",
        field: Optional[str] = None,
        retry_after_s: Optional[float] = None,
    ) -> None:
        super().__init__(f"{status}: {field}: {detail}" if field else f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.type = type
        self.title = title
        self.field = field
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    """400: the request is invalid; `field` names the wrong field."""


class Unauthorized(ApiError):
    """401: no API key where one is required, or an unknown, expired or revoked one."""


class Forbidden(ApiError):
    """403: the API key lacks a scope."""


class NotFound(ApiError):
    """404: no such execution or artifact."""


class Conflict(ApiError):
    """409: the request does not fit the state of the object."""


class TooLarge(ApiError):
    """413: the request is larger than the server allows."""


class IdempotencyConflict(ApiError):
    """422: another request had this idempotency key."""


class TooManyRequests(ApiError):
    """429: the queue is full or a quota is used up, and retries did not help."""


class QuotaExceeded(TooManyRequests):
    """429: a quota of the API key is used up; `detail` names it."""


class QueueFull(TooManyRequests):
    """429: as many executions wait as the server allows."""


class ServerError(ApiError):
    """500 and above: the server failed."""


class Unavailable(ServerError):
    """503: the server is stopping or overloaded, and retries did not help."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: IdempotencyConflict,
    429: TooManyRequests,
    503: Unavailable,
}
_BY_TYPE: dict[str, type[ApiError]] = {
    "/problems/quota": QuotaExceeded,
    "/problems/queue-full": QueueFull,
}


def from_response(status: int, body: bytes, retry_after_s: Optional[float]) -> ApiError:
    """The error of a response: a problem document (RFC 9457), or whatever a proxy answered instead."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": body[:200].decode("utf-8", "replace").strip()}
    type = str(problem.get("type") or "about:blank")
    kind = _BY_TYPE.get(type) or _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    return kind(
        status,
        str(problem.get("detail") or problem.get("error") or problem.get("title") or "no reason was given"),
        type=type,
        title=str(problem.get("title") or ""),
        field=problem.get("field"),
        retry_after_s=problem.get("retry_after_s", retry_after_s),
    )
