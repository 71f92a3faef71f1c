"""The requests of the API, without the client that sends them."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Generic, Optional, TypeVar
from urllib.parse import quote

import httpx

from . import _decode, _request
from ._retry import retry_after
from .errors import ApiError, ProtocolError, from_response
from .types import (
    Artifact,
    Execution,
    ExecutionList,
    ExecutionSummary,
    LanguageInfo,
    RunOptions,
    SubmitOptions,
    Usage,
)

T = TypeVar("T")

# The server waits at most 60 s. Proxies often cut connections that are silent for as long.
LONGEST_WAIT_S = 30
# The time-out of the requests that cancel an execution whose caller does not wait any more.
ABANDON_S = 5.0


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its response is read."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    headers: Mapping[str, str] = field(default_factory=dict)
    params: tuple[tuple[str, str], ...] = ()
    content: Optional[bytes] = None


def run(language: str, code: str, options: Mapping[str, Any], allowed: type = RunOptions) -> Call[Execution]:
    """Waits for the result. The execution outlives its connection, because it has an idempotency key."""
    key = options.get("idempotency_key") or str(uuid.uuid4())
    headers = {"content-type": "application/json", "idempotency-key": key}
    content = json.dumps(_request.body(language, code, options, allowed)).encode()
    return Call("POST", "v1/executions", _execution, headers, content=content)


def submit(language: str, code: str, options: Mapping[str, Any]) -> Call[str]:
    """Starts a durable execution and returns its id."""
    return submitted(run(language, code, options, SubmitOptions))


def submitted(call: Call[Execution]) -> Call[str]:
    """The id of the execution that this call has started, or starts, without waiting for it."""
    headers = {**call.headers, "prefer": "respond-async"}
    return Call(call.method, call.path, lambda got: _summary(got).id, headers, content=call.content)


def status(id: str) -> Call[ExecutionSummary]:
    """The execution without its output."""
    return Call("GET", _path(id), _summary)


def wait(id: str, seconds: float) -> Call[Optional[Execution]]:
    """The result; None if it has not ended after these seconds."""
    return Call("GET", _path(id), _ended, params=(("wait", f"{max(0, math.ceil(seconds))}s"),))


def longest_wait(timeout: Optional[float]) -> int:
    """Seconds that one request waits for a result, below the client's time-out for a silent server."""
    return LONGEST_WAIT_S if timeout is None else max(1, min(LONGEST_WAIT_S, int(timeout / 2)))


def cancel(id: str) -> Call[Execution]:
    """Kills the VM, and returns the result."""
    return Call("DELETE", _path(id), _execution)


def executions(
    status: Optional[str], language: Optional[str], labels: Mapping[str, str], page: int, cursor: Optional[str]
) -> Call[ExecutionList]:
    """A page of executions, newest first."""
    params = [("limit", str(page))]
    params += [(name, value) for name, value in (("status", status), ("language", language)) if value]
    params += [("label", f"{name}:{value}") for name, value in labels.items()]
    params += [("cursor", cursor)] if cursor else []
    return Call("GET", "v1/executions", _reader(ExecutionList), params=tuple(params))


def output(id: str, stream: str, stage: str, start: int) -> Call[bytes]:
    """A stream's bytes, beginning with the one numbered `start`."""
    headers = {"range": f"bytes={start}-"} if start else {}
    return Call("GET", f"{_path(id)}/{stream}", lambda got: got.content, headers, (("stage", stage),))


def artifacts(id: str) -> Call[list[Artifact]]:
    """The files that the program left."""
    return Call("GET", f"{_path(id)}/artifacts", _list_reader(Artifact))


def artifact(id: str, path: str) -> Call[bytes]:
    """The content of one of them."""
    return Call("GET", f"{_path(id)}/artifacts/{quote(path, safe='/')}", lambda got: got.content)


def languages() -> Call[list[LanguageInfo]]:
    """The languages of the server."""
    return Call("GET", "v1/languages", _list_reader(LanguageInfo))


def usage() -> Call[list[Usage]]:
    """What the executions of each key used."""
    return Call("GET", "v1/usage", _list_reader(Usage))


def events(id: str) -> Call[None]:
    """The events of an execution."""
    return Call("GET", f"{_path(id)}/events", lambda got: None)


def refusal(response: httpx.Response) -> ApiError:
    """The error of a response that is not a success, whose body was read."""
    return from_response(response.status_code, response.content, retry_after(response))


def _path(id: str) -> str:
    return f"v1/executions/{quote(id, safe='')}"


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ProtocolError(f"{response.request.url} answered no JSON: is it a Cloude server?") from error


def _reader(kind: type[T]) -> Callable[[httpx.Response], T]:
    return lambda response: _decode.read(kind, _json(response))


def _list_reader(kind: type[T]) -> Callable[[httpx.Response], list[T]]:
    return lambda response: _decode.read_list(kind, _json(response))


_execution = _reader(Execution)
_summary = _reader(ExecutionSummary)


def _ended(response: httpx.Response) -> Optional[Execution]:
    return None if response.status_code == httpx.codes.ACCEPTED else _execution(response)
