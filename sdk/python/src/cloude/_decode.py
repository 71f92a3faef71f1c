"""Reads the dataclasses of `types` from JSON."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import typing
from typing import Any, Literal, Optional, TypeVar, Union, cast

from .errors import ProtocolError
from .types import Accepted, Dropped, Event, Execution, Output, Restarted, Result, Started

T = TypeVar("T")

_EVENTS: dict[str, type[Event]] = {
    "accepted": Accepted,
    "started": Started,
    "output": Output,
    "dropped": Dropped,
    "restarted": Restarted,
}


def read(kind: type[T], value: object) -> T:
    """The dataclass `kind` from a JSON value. Unknown fields are ignored."""
    return cast(T, _read(kind, value, kind.__name__))


def read_list(kind: type[T], value: object) -> list[T]:
    """A list of dataclasses."""
    return cast("list[T]", _read(list[kind], value, kind.__name__))  # type: ignore[valid-type]


def read_event(value: object) -> Optional[Event]:
    """An event; None for one that this version does not know."""
    if not isinstance(value, dict):
        raise ProtocolError(f"an event is not a JSON object: {_short(value)}")
    name = value.get("event")
    if name == "result":
        return Result(read(Execution, value))
    kind = _EVENTS.get(str(name))
    return None if kind is None else read(kind, value)


@functools.cache
def fields(kind: type) -> list[tuple[dataclasses.Field[Any], str, Any]]:
    """The fields of a dataclass, each with its name in JSON and its type."""
    hints = typing.get_type_hints(kind)
    return [(item, item.metadata.get("json", item.name), hints[item.name]) for item in dataclasses.fields(kind)]


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Union:  # Optional[X]
        return None if value is None else _read(arguments[0], value, where)
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: _read(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if kind is bytes:
        return _bytes(value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _object(cast(type, kind), value, where)
    # A later server may have further values of a Literal.
    wanted = str if origin is Literal else kind
    if isinstance(wanted, type) and isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool):
        return value
    raise ProtocolError(f"the server's answer has an unexpected value for {where}: {_short(value)}")


def _object(kind: type, value: dict[str, Any], where: str) -> Any:
    given: dict[str, Any] = {}
    for item, name, hint in fields(kind):
        if name in value:
            given[item.name] = _read(hint, value[name], f"{where}.{name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ProtocolError(f"the server's answer lacks {where}.{name}: is it a Cloude server of this version?")
    return kind(**given)


def _bytes(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ProtocolError(f"the server's answer has invalid base64 in {where}: {error}") from error
    raise ProtocolError(f"the server's answer has neither text nor base64 in {where}: {_short(value)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
