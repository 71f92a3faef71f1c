"""The blocking client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Optional, TypeVar, Union

import httpx

from . import _attach, _calls, _connect
from ._calls import Call
from ._events import EventReader
from ._retry import CONNECTION_ERRORS, Retries
from .errors import ApiError, CloudeError, ConnectionFailed, ProtocolError, WaitTimeout
from .types import (
    Accepted,
    Artifact,
    Event,
    Execution,
    ExecutionSummary,
    LanguageInfo,
    RunOptions,
    StageName,
    Status,
    StreamName,
    SubmitOptions,
    Usage,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class Client:
    """A client of one server. Threads may share it.

    `url` is `http://HOST:PORT`, `https://HOST` or `unix:/PATH`; `api_key` begins with `cloude_`; `ca` is a PEM file of
    authorities to trust besides the system's. Without them the variables CLOUDE_BACKEND, CLOUDE_API_KEY and CLOUDE_CA
    are read. `timeout` is the longest silence of the server in seconds, None for no limit. A request that is answered
    429 or 503, or whose connection fails, is sent again up to `max_retries` times.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        api_key: Optional[str] = None,
        ca: Optional[str] = None,
        timeout: Optional[float] = 600.0,
        max_retries: int = 5,
    ) -> None:
        to = _connect.address(url)
        self.url = to.shown
        self._max_retries = max_retries
        self._longest_wait = _calls.longest_wait(timeout)
        key = _connect.api_key(api_key)
        settings = _connect.settings(to, key, ca, timeout)
        self._target = _attach.Target(to, key, settings["verify"], timeout)
        self._http = httpx.Client(
            **settings,
            transport=httpx.HTTPTransport(uds=to.socket) if to.socket else None,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()

    def run(self, language: str, code: str = "", **options: Unpack[RunOptions]) -> Execution:
        """Runs a program in a fresh VM and waits for its result. A program that fails is no error.

        An interrupt (Ctrl-C), a cancelled task or a time-out cancels the execution.
        """
        call = _calls.run(language, code, options)
        try:
            return self._send(call)
        except (ApiError, ProtocolError):
            raise
        except BaseException:
            self._abandon(call)
            raise

    def stream(self, language: str, code: str = "", **options: Unpack[RunOptions]) -> EventStream:
        """Runs a program and returns its events as they come. It starts when the first event is read.

        Closing the stream before its end cancels the execution. A connection that breaks is made again, and continues
        at the byte where it broke.
        """
        return EventStream(self._events(_calls.run(language, code, options)))

    def submit(self, language: str, code: str = "", **options: Unpack[SubmitOptions]) -> Job:
        """Starts a durable execution: it outlives this client, and a crash of the server."""
        return self.job(self._send(_calls.submit(language, code, options)))

    def job(self, id: str) -> Job:
        """The handle of an execution that was started before. Sends no request."""
        return Job(self, id)

    def executions(
        self,
        *,
        status: Optional[Status] = None,
        language: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        page_size: int = 100,
    ) -> Iterator[ExecutionSummary]:
        """The executions that fit all filters, newest first. Reads further pages as they are needed."""
        cursor: Optional[str] = None
        while True:
            page = self._send(_calls.executions(status, language, labels or {}, page_size, cursor))
            yield from page.executions
            cursor = page.next_cursor
            if cursor is None:
                return

    def artifacts(self, id: str) -> list[Artifact]:
        """The files that the program left, of those that `artifacts` of the request named."""
        return self._send(_calls.artifacts(id))

    def artifact(self, id: str, path: str) -> bytes:
        """The content of one of them."""
        return self._send(_calls.artifact(id, path))

    def output(self, id: str, stream: StreamName = "stdout", *, stage: StageName = "run", start: int = 0) -> bytes:
        """The stored bytes of an output stream, without the first `start` ones."""
        return self._send(_calls.output(id, stream, stage, start))

    def languages(self) -> list[LanguageInfo]:
        """The languages of the server."""
        return self._send(_calls.languages())

    def usage(self) -> list[Usage]:
        """What the executions of the caller's API key used; of each key for an administrator."""
        return self._send(_calls.usage())

    def _send(self, call: Call[T]) -> T:
        left = Retries(self._max_retries)
        while True:
            try:
                response = self._request(call)
            except CONNECTION_ERRORS as error:
                delay = left.after_failure()
                if delay is None:
                    raise self._failed(error) from error
            except httpx.HTTPError as error:
                raise self._failed(error) from error
            else:
                if response.is_success:
                    return call.parse(response)
                delay = left.after_response(response)
                if delay is None:
                    raise _calls.refusal(response)
            time.sleep(delay)

    def _request(self, call: Call[T], timeout: Optional[float] = None) -> httpx.Response:
        return self._http.request(
            call.method,
            call.path,
            params=call.params or None,
            headers=call.headers,
            content=call.content,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
        )

    def _abandon(self, call: Call[Execution], id: Optional[str] = None) -> None:
        """Cancels the execution with this id, or the one that this call may have started."""
        start = _calls.submitted(call)
        with contextlib.suppress(CloudeError, httpx.HTTPError):
            if id is None:
                response = self._request(start, _calls.ABANDON_S)
                if not response.is_success:
                    return
                id = start.parse(response)
            self._request(_calls.cancel(id), _calls.ABANDON_S)

    def _events(self, source: Union[str, Call[Execution]]) -> Generator[Event, None, None]:
        """The events of the execution with this id, or of the one that this call starts, which ends with the stream."""
        id, cancel = (source, False) if isinstance(source, str) else (None, True)
        reader = EventReader()
        retries = Retries(self._max_retries)
        try:
            while True:
                call = source if id is None and not isinstance(source, str) else _calls.events(str(id))
                headers = {**call.headers, **reader.connect()}
                broken: Optional[Exception] = None
                delay: Optional[float] = None
                try:
                    with self._http.stream(call.method, call.path, headers=headers, content=call.content) as got:
                        if not got.is_success:
                            got.read()
                            delay = retries.after_response(got)
                            if delay is None:
                                cancel = cancel and id is not None
                                raise _calls.refusal(got)
                        else:
                            for chunk in got.iter_bytes():
                                for event in reader.feed(chunk):
                                    retries = Retries(self._max_retries)
                                    id = event.id if isinstance(event, Accepted) else id
                                    yield event
                                if reader.ended:
                                    return
                except httpx.ReadTimeout:
                    continue
                except CONNECTION_ERRORS as error:
                    broken = error
                except httpx.HTTPError as error:
                    raise self._failed(error) from error
                if delay is None:
                    delay = retries.after_failure()
                if delay is None:
                    raise self._failed(broken) from broken
                time.sleep(max(delay, reader.reconnect_after_s))
        finally:
            if cancel and not reader.ended and not isinstance(source, str):
                self._abandon(source, id)

    def _failed(self, error: Optional[Exception]) -> ConnectionFailed:
        reason = str(error or "the server ended the stream before its result") or type(error).__name__
        return ConnectionFailed(f"{self.url}: {reason}")


class EventStream:
    """The events of an execution. As a context manager it is closed at the end of the block."""

    def __init__(self, events: Generator[Event, None, None]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Further events are not read."""
        self._events.close()


class Job:
    """A durable execution."""

    def __init__(self, client: Client, id: str) -> None:
        self.id = id
        self._client = client

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> ExecutionSummary:
        """Its status, without its output."""
        return self._client._send(_calls.status(self.id))

    def wait(self, timeout: Optional[float] = None) -> Execution:
        """Waits for the result. Raises WaitTimeout after `timeout` seconds; the execution goes on then."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            longest = self._client._longest_wait
            left = longest if until is None else min(until - time.monotonic(), longest)
            result = self._client._send(_calls.wait(self.id, left))
            if result is not None:
                return result
            if until is not None and time.monotonic() >= until:
                raise WaitTimeout(f"the execution {self.id} has not ended within {timeout} s")

    def events(self) -> EventStream:
        """Its events from the start. Closing the stream does not cancel the execution."""
        return EventStream(self._client._events(self.id))

    def attach(self) -> _attach.Attached:
        """Connects to it: its events come, and input goes if it was submitted with `interactive`.

        Needs the package websockets (`pip install 'cloude[attach]'`).
        """
        return _attach.connect(self._client._target, self.id)

    def cancel(self) -> Execution:
        """Kills its VM, and returns the result with the output so far."""
        return self._client._send(_calls.cancel(self.id))

    def artifact(self, path: str) -> bytes:
        """The content of a file that the program left."""
        return self._client.artifact(self.id, path)
