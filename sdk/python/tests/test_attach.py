"""Attached connections, with the blocking and with the asynchronous client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Optional

import pytest
from examples import output, result
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve, unix_serve

import cloude

ACCEPTED = {"event": "accepted", "id": "e 1", "interactive": {"terminal": {"columns": 80, "rows": 24}}}


class Program:
    """Sends back what it gets, and ends at the end of its input or with a signal."""

    def __init__(self, socket: Optional[str] = None) -> None:
        self.got: list[Any] = []
        self.requests: list[Request] = []
        options: dict[str, Any] = {"process_request": self._check}
        if socket is None:
            self._server = serve(self._talk, "127.0.0.1", 0, **options)
            self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        else:
            self._server = unix_serve(self._talk, socket, **options)
            self.url = f"unix:{socket}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _check(self, connection: ServerConnection, request: Request) -> Optional[Response]:
        self.requests.append(request)
        if "unknown" not in request.path:
            return None
        body = json.dumps({"type": "about:blank", "status": 404, "detail": "no execution"}).encode()
        headers = Headers({"content-length": str(len(body))})
        return Response(HTTPStatus.NOT_FOUND.value, "Not Found", headers, body)

    def _talk(self, connection: ServerConnection) -> None:
        for event in (ACCEPTED, {"event": "of_a_later_version"}, {"event": "started", "stage": "run"}):
            connection.send(json.dumps(event))
        for message in connection:
            self.got.append(message if isinstance(message, bytes) else json.loads(message))
            if isinstance(message, bytes):
                connection.send(json.dumps(output(message.decode())))
            elif "close_stdin" in message:
                connection.send(json.dumps(result()))
                return
            elif "signal" in message:
                connection.close(1012, "the server is shutting down")
                return


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.stop()


def check(events: list[cloude.Event], program: Program) -> None:
    accepted = events[0]
    assert isinstance(accepted, cloude.Accepted)
    assert accepted.interactive is not None and accepted.interactive.terminal is not None
    assert accepted.interactive.terminal.columns == 80
    assert [event.text for event in events if isinstance(event, cloude.Output)] == ["héllo", "raw"]
    assert isinstance(events[-1], cloude.Result)
    resize = {"resize": {"columns": 100, "rows": 30}}
    assert program.got == ["héllo".encode(), b"raw", resize, {"close_stdin": True}]
    assert program.requests[0].path == "/v1/executions/e%201/attach"
    assert program.requests[0].headers["authorization"] == "Bearer cloude_key"


def test_input_goes_and_events_come(program: Program) -> None:
    with cloude.Client(program.url, api_key="cloude_key") as client, client.job("e 1").attach() as attached:
        attached.send("héllo")
        attached.send(b"raw")
        attached.resize(100, 30)
        attached.close_stdin()
        check(list(attached), program)


def test_input_goes_and_events_come_asynchronously(program: Program) -> None:
    async def talk() -> list[cloude.Event]:
        async with cloude.AsyncClient(program.url, api_key="cloude_key") as client:
            async with await client.job("e 1").attach() as attached:
                await attached.send("héllo")
                await attached.send(b"raw")
                await attached.resize(100, 30)
                await attached.close_stdin()
                return [event async for event in attached]

    check(asyncio.run(talk()), program)


def test_large_input_is_cut_into_messages(program: Program) -> None:
    with cloude.Client(program.url) as client, client.job("e1").attach() as attached:
        attached.send(b"x" * 300_000)
        attached.close_stdin()
        assert attached.wait().exit_code == 0
    assert b"".join(program.got[:-1]) == b"x" * 300_000
    assert max(len(piece) for piece in program.got[:-1]) <= 65536


def test_a_close_frame_before_the_result_is_an_error(program: Program) -> None:
    with cloude.Client(program.url) as client, client.job("e1").attach() as attached:
        attached.signal("INT")
        with pytest.raises(cloude.ConnectionFailed, match="the server is shutting down"):
            attached.wait()
    assert program.got == [{"signal": "INT"}]


def test_a_refused_handshake_is_the_servers_error(program: Program) -> None:
    async def attach() -> None:
        async with cloude.AsyncClient(program.url) as client:
            await client.job("unknown").attach()

    with cloude.Client(program.url) as client, pytest.raises(cloude.NotFound, match="no execution"):
        client.job("unknown").attach()
    with pytest.raises(cloude.NotFound, match="no execution"):
        asyncio.run(attach())


def test_an_unreachable_server_is_an_error() -> None:
    with cloude.Client("http://127.0.0.1:1") as client, pytest.raises(cloude.ConnectionFailed):
        client.job("e1").attach()


def test_a_unix_socket_works(tmp_path: Path) -> None:
    program = Program(str(tmp_path / "api.sock"))
    try:
        with cloude.Client(program.url) as client, client.job("e1").attach() as attached:
            attached.close_stdin()
            assert attached.wait().exit_code == 0
    finally:
        program.stop()
