"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), resumed by their ids."""

from __future__ import annotations

import json
from typing import Optional

from ._decode import read_event
from .errors import ProtocolError
from .types import Event, Result


class EventReader:
    """The events of one execution, over any number of connections."""

    def __init__(self) -> None:
        self.ended = False
        self.reconnect_after_s = 0.0
        self._last_id: Optional[str] = None
        self._rest = b""
        self._data: list[str] = []
        self._id: Optional[str] = None

    def connect(self) -> dict[str, str]:
        """Forgets an incomplete event, and returns the headers of the next connection."""
        self._rest = b""
        self._data = []
        self._id = self._last_id
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        return headers

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            event = self._line(line.rstrip(b"\r").decode("utf-8", "replace"))
            if event is not None:
                events.append(event)
                self.ended = isinstance(event, Result)
        return events

    def _line(self, line: str) -> Optional[Event]:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.reconnect_after_s = int(value) / 1000
        return None

    def _dispatch(self) -> Optional[Event]:
        data, self._data = "\n".join(self._data), []
        self._last_id = self._id
        if not data:
            return None
        try:
            return read_event(json.loads(data))
        except ValueError as error:
            raise ProtocolError(f"an event is not JSON: {error}") from error
