"""A scripted HTTP server, and the asynchronous client behind the methods of the blocking one."""

from __future__ import annotations

import asyncio
import inspect
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Optional

import cloude


@dataclass
class Reply:
    """A response. `breaks` closes the connection before the end of the body; status 0 answers nothing at all.

    `waits` answers when the test is over.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    breaks: bool = False
    waits: bool = False


@dataclass
class Request:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def problem(status: int, **fields: Any) -> Reply:
    """An error response of the API."""
    document = {"type": "about:blank", "title": "", "status": status, "detail": "the reason", **fields}
    return Reply(status, document, {"content-type": "application/problem+json"})


def events(*items: tuple[str, dict[str, Any]], breaks: bool = False) -> Reply:
    """Server-sent events: pairs of an id and the JSON."""
    text = "".join(f"id: {id}\nevent: {item['event']}\ndata: {json.dumps(item)}\n\n" for id, item in items)
    return Reply(200, text.encode(), {"content-type": "text/event-stream"}, breaks)


class Server:
    """Answers each request with the next reply, in order, and records the requests."""

    def __init__(self, *replies: Reply, socket: Optional[str] = None) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.over = threading.Event()
        handler = type("Handler", (_Handler,), {"script": self})
        self._server: socketserver.BaseServer
        if socket is None:
            self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
            self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        else:
            self._server = socketserver.ThreadingUnixStreamServer(socket, handler)
            self.url = f"unix:{socket}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    script: Server

    def answer(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.requests.append(Request(self.command, self.path, headers, self.rfile.read(length)))
        reply = self.script.replies.pop(0) if self.script.replies else Reply(500, {"detail": "no reply is left"})
        if reply.status == 0:
            return
        if reply.waits:
            self.script.over.wait()
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) + reply.breaks))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


class Blocking:
    """Calls an object of the asynchronous API, and waits for each result."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        name = "aclose" if name == "close" else name
        found = getattr(self._target, name)
        return (lambda *args, **options: self._wait(found(*args, **options))) if callable(found) else found

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self._wait(self._target.__anext__())
            except StopAsyncIteration:
                return

    def _wait(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self._loop.run_until_complete(value)
        wrapped = isinstance(value, (cloude.AsyncJob, cloude.AsyncEventStream)) or inspect.isasyncgen(value)
        return Blocking(value, self._loop) if wrapped else value
