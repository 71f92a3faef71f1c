"""The WebSocket of a running execution: events come, and input goes. Needs the package `websockets`."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import quote, urlsplit

from ._connect import Address
from ._decode import read_event
from .errors import ConnectionFailed, ProtocolError, from_response
from .types import Event, Execution, Result

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncConnection
    from websockets.sync.client import ClientConnection

PIECE = 64 << 10
"""Bytes in one message. The server accepts 256 KiB."""


@dataclass(frozen=True)
class Target:
    """A server, and what its client sends with each request."""

    address: Address
    key: Optional[str]
    trust: ssl.SSLContext
    timeout: Optional[float]

    def uri(self, id: str) -> str:
        return f"ws{self.address.base[len('http') :]}v1/executions/{quote(id, safe='')}/attach"

    def arguments(self) -> dict[str, Any]:
        """The arguments of both `connect`s of websockets."""
        made: dict[str, Any] = {"max_size": None, "compression": None, "open_timeout": self.timeout}
        if self.key is not None:
            made["additional_headers"] = {"Authorization": f"Bearer {self.key}"}
        if urlsplit(self.address.base).scheme == "https":
            made["ssl"] = self.trust
        if self.address.local:
            made["proxy"] = None
        if self.address.socket is not None:
            made["path"] = self.address.socket
        return made


def _missing() -> ImportError:
    return ImportError("attach needs the package websockets: pip install 'cloude[attach]'")


def connect(target: Target, id: str) -> Attached:
    """A connection of the blocking client."""
    try:
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect, unix_connect
    except ImportError as error:
        raise _missing() from error
    opened = connect if target.address.socket is None else unix_connect
    try:
        return Attached(opened(uri=target.uri(id), **target.arguments()), target)
    except InvalidStatus as error:
        raise from_response(error.response.status_code, error.response.body or b"", None) from error
    except (OSError, WebSocketException) as error:
        raise ConnectionFailed(f"{target.address.shown}: {error}") from error


async def connect_async(target: Target, id: str) -> AsyncAttached:
    """A connection of the asynchronous client."""
    try:
        from websockets.asyncio.client import connect, unix_connect
        from websockets.exceptions import InvalidStatus, WebSocketException
    except ImportError as error:
        raise _missing() from error
    opened = connect if target.address.socket is None else unix_connect
    try:
        return AsyncAttached(await opened(uri=target.uri(id), **target.arguments()), target)
    except InvalidStatus as error:
        raise from_response(error.response.status_code, error.response.body or b"", None) from error
    except (OSError, WebSocketException) as error:
        raise ConnectionFailed(f"{target.address.shown}: {error}") from error


def _event(message: Union[str, bytes]) -> Optional[Event]:
    try:
        return read_event(json.loads(message))
    except ValueError as error:
        raise ProtocolError(f"an event is not JSON: {error}") from error


def _pieces(content: Union[str, bytes]) -> Iterator[bytes]:
    raw = content.encode() if isinstance(content, str) else content
    return (raw[at : at + PIECE] for at in range(0, len(raw), PIECE))


def _closed(target: Target, error: Any) -> ConnectionFailed:
    frame = getattr(error, "rcvd", None)
    reason = frame.reason if frame is not None and frame.reason else str(error)
    return ConnectionFailed(f"{target.address.shown}: {reason}")


def _signal(name: Union[str, int]) -> str:
    return json.dumps({"signal": name})


def _resize(columns: int, rows: int) -> str:
    return json.dumps({"resize": {"columns": columns, "rows": rows}})


_CLOSE_STDIN = json.dumps({"close_stdin": True})


class Attached:
    """A connection to a running execution. As a context manager it is closed at the end of the block.

    Iterating gives all events from the first one. Closing it does not end the program.
    """

    def __init__(self, connection: ClientConnection, target: Target) -> None:
        self._connection = connection
        self._target = target

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                event = _event(self._connection.recv())
                if event is not None:
                    yield event
                if isinstance(event, Result):
                    return
        except ConnectionClosed as error:
            raise _closed(self._target, error) from error

    def send(self, content: Union[str, bytes]) -> None:
        """Sends bytes for standard input, or text as UTF-8. Waits while the program reads too slowly."""
        for piece in _pieces(content):
            self._send(piece)

    def close_stdin(self) -> None:
        """Closes standard input; a terminal gets its end-of-file character."""
        self._send(_CLOSE_STDIN)

    def signal(self, name: Union[str, int]) -> None:
        """Sends a signal, such as "INT", to the program's process group."""
        self._send(_signal(name))

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size of the terminal."""
        self._send(_resize(columns, rows))

    def wait(self) -> Execution:
        """Reads the remaining events, and returns the result without its output, which the events have."""
        for event in self:
            if isinstance(event, Result):
                return event.execution
        raise ConnectionFailed(f"{self._target.address.shown}: the connection ended before the result")

    def close(self) -> None:
        """Closes the connection. The program goes on."""
        self._connection.close()

    def _send(self, message: Union[str, bytes]) -> None:
        from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

        try:
            self._connection.send(message)
        except ConnectionClosedOK:
            pass  # The program has ended.
        except ConnectionClosed as error:
            raise _closed(self._target, error) from error


class AsyncAttached:
    """A connection to a running execution. As a context manager it is closed at the end of the block.

    Iterating gives all events from the first one. Closing it does not end the program.
    """

    def __init__(self, connection: AsyncConnection, target: Target) -> None:
        self._connection = connection
        self._target = target

    async def __aenter__(self) -> AsyncAttached:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                event = _event(await self._connection.recv())
                if event is not None:
                    yield event
                if isinstance(event, Result):
                    return
        except ConnectionClosed as error:
            raise _closed(self._target, error) from error

    async def send(self, content: Union[str, bytes]) -> None:
        """Sends bytes for standard input, or text as UTF-8. Waits while the program reads too slowly."""
        for piece in _pieces(content):
            await self._send(piece)

    async def close_stdin(self) -> None:
        """Closes standard input; a terminal gets its end-of-file character."""
        await self._send(_CLOSE_STDIN)

    async def signal(self, name: Union[str, int]) -> None:
        """Sends a signal, such as "INT", to the program's process group."""
        await self._send(_signal(name))

    async def resize(self, columns: int, rows: int) -> None:
        """Changes the size of the terminal."""
        await self._send(_resize(columns, rows))

    async def wait(self) -> Execution:
        """Reads the remaining events, and returns the result without its output, which the events have."""
        async for event in self:
            if isinstance(event, Result):
                return event.execution
        raise ConnectionFailed(f"{self._target.address.shown}: the connection ended before the result")

    async def close(self) -> None:
        """Closes the connection. The program goes on."""
        await self._connection.close()

    async def _send(self, message: Union[str, bytes]) -> None:
        from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

        try:
            await self._connection.send(message)
        except ConnectionClosedOK:
            pass  # The program has ended.
        except ConnectionClosed as error:
            raise _closed(self._target, error) from error
