"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
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


class AsyncClient:
    """A client of one server, for one event loop.

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
        self._http = httpx.AsyncClient(
            **settings,
            transport=httpx.AsyncHTTPTransport(uds=to.socket) if to.socket else None,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def run(self, language: str, code: str = "", **options: Unpack[RunOptions]) -> Execution:
        """Runs a program in a fresh VM and waits for its result. A program that fails is no error.

        An interrupt (Ctrl-C), a cancelled task or a time-out cancels the execution.
        """
        call = _calls.run(language, code, options)
        try:
            return await self._send(call)
        except (ApiError, ProtocolError):
            raise
        except BaseException:
            await self._abandon(call)
            raise

    def stream(self, language: str, code: str = "", **options: Unpack[RunOptions]) -> AsyncEventStream:
        """Runs a program and returns its events as they come. It starts when the first event is read.

        Closing the stream before its end cancels the execution. A connection that breaks is made again, and continues
        at the byte where it broke.
        """
        return AsyncEventStream(self._events(_calls.run(language, code, options)))

    async def submit(self, language: str, code: str = "", **options: Unpack[SubmitOptions]) -> AsyncJob:
        """Starts a durable execution: it outlives this client, and a crash of the server."""
        return self.job(await self._send(_calls.submit(language, code, options)))

    def job(self, id: str) -> AsyncJob:
        """The handle of an execution that was started before. Sends no request."""
        return AsyncJob(self, id)

    async def executions(
        self,
        *,
        status: Optional[Status] = None,
        language: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        page_size: int = 100,
    ) -> AsyncIterator[ExecutionSummary]:
        """The executions that fit all filters, newest first. Reads further pages as they are needed."""
        cursor: Optional[str] = None
        while True:
            page = await self._send(_calls.executions(status, language, labels or {}, page_size, cursor))
            for summary in page.executions:
                yield summary
            cursor = page.next_cursor
            if cursor is None:
                return

    async def artifacts(self, id: str) -> list[Artifact]:
        """The files that the program left, of those that `artifacts` of the request named."""
        return await self._send(_calls.artifacts(id))

    async def artifact(self, id: str, path: str) -> bytes:
        """The content of one of them."""
        return await self._send(_calls.artifact(id, path))

    async def output(
        self, id: str, stream: StreamName = "stdout", *, stage: StageName = "run", start: int = 0
    ) -> bytes:
        """The stored bytes of an output stream, without the first `start` ones."""
        return await self._send(_calls.output(id, stream, stage, start))

    async def languages(self) -> list[LanguageInfo]:
        """The languages of the server."""
        return await self._send(_calls.languages())

    async def usage(self) -> list[Usage]:
        """What the executions of the caller's API key used; of each key for an administrator."""
        return await self._send(_calls.usage())

    async def _send(self, call: Call[T]) -> T:
        left = Retries(self._max_retries)
        while True:
            try:
                response = await self._request(call)
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
            await asyncio.sleep(delay)

    async def _request(self, call: Call[T], timeout: Optional[float] = None) -> httpx.Response:
        return await self._http.request(
            call.method,
            call.path,
            params=call.params or None,
            headers=call.headers,
            content=call.content,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
        )

    async def _abandon(self, call: Call[Execution], id: Optional[str] = None) -> None:
        """Cancels the execution with this id, or the one that this call may have started."""
        start = _calls.submitted(call)
        with contextlib.suppress(CloudeError, httpx.HTTPError):
            if id is None:
                response = await self._request(start, _calls.ABANDON_S)
                if not response.is_success:
                    return
                id = start.parse(response)
            await self._request(_calls.cancel(id), _calls.ABANDON_S)

    async def _events(self, source: Union[str, Call[Execution]]) -> AsyncGenerator[Event, None]:
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
                    async with self._http.stream(call.method, call.path, headers=headers, content=call.content) as got:
                        if not got.is_success:
                            await got.aread()
                            delay = retries.after_response(got)
                            if delay is None:
                                cancel = cancel and id is not None
                                raise _calls.refusal(got)
                        else:
                            async for chunk in got.aiter_bytes():
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
                await asyncio.sleep(max(delay, reader.reconnect_after_s))
        finally:
            if cancel and not reader.ended and not isinstance(source, str):
                await self._abandon(source, id)

    def _failed(self, error: Optional[Exception]) -> ConnectionFailed:
        reason = str(error or "the server ended the stream before its result") or type(error).__name__
        return ConnectionFailed(f"{self.url}: {reason}")


class AsyncEventStream:
    """The events of an execution. As a context manager it is closed at the end of the block."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._events.__anext__()

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection. Further events are not read."""
        await self._events.aclose()


class AsyncJob:
    """A durable execution."""

    def __init__(self, client: AsyncClient, id: str) -> None:
        self.id = id
        self._client = client

    def __repr__(self) -> str:
        return f"AsyncJob({self.id!r})"

    async def status(self) -> ExecutionSummary:
        """Its status, without its output."""
        return await self._client._send(_calls.status(self.id))

    async def wait(self, timeout: Optional[float] = None) -> Execution:
        """Waits for the result. Raises WaitTimeout after `timeout` seconds; the execution goes on then."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            longest = self._client._longest_wait
            left = longest if until is None else min(until - time.monotonic(), longest)
            result = await self._client._send(_calls.wait(self.id, left))
            if result is not None:
                return result
            if until is not None and time.monotonic() >= until:
                raise WaitTimeout(f"the execution {self.id} has not ended within {timeout} s")

    def events(self) -> AsyncEventStream:
        """Its events from the start. Closing the stream does not cancel the execution."""
        return AsyncEventStream(self._client._events(self.id))

    async def attach(self) -> _attach.AsyncAttached:
        """Connects to it: its events come, and input goes if it was submitted with `interactive`.

        Needs the package websockets (`pip install 'cloude[attach]'`).
        """
        return await _attach.connect_async(self._client._target, self.id)

    async def cancel(self) -> Execution:
        """Kills its VM, and returns the result with the output so far."""
        return await self._client._send(_calls.cancel(self.id))

    async def artifact(self, path: str) -> bytes:
        """The content of a file that the program left."""
        return await self._client.artifact(self.id, path)
