"""The body of `POST /v1/executions` from the arguments of `run`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union

from .types import Content, File


def body(language: str, code: str, options: Mapping[str, Any], allowed: type) -> dict[str, Any]:
    """The JSON object. `allowed` is the TypedDict that `options` must fit; options that are None count as absent."""
    known: frozenset[str] = allowed.__optional_keys__  # type: ignore[attr-defined]
    for name in options:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; known are {', '.join(sorted(known))}")
    request = {name: value for name, value in options.items() if value is not None and name != "idempotency_key"}
    request["language"] = language
    if code:
        request["code"] = code
    if "files" in request:
        request["files"] = [_file(item) for item in _files(request["files"])]
    if "stdin" in request:
        request["stdin"] = data(request["stdin"])
    for name in ("args", "artifacts", "compile_options"):
        if isinstance(request.get(name), (str, bytes)):
            raise TypeError(f"{name} is a list of strings, not one string")
        if name in request:
            request[name] = list(request[name])
    return request


def data(content: Union[str, bytes]) -> Union[str, dict[str, str]]:
    """Text as it is, and bytes that are not UTF-8 in base64."""
    if isinstance(content, str):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _files(files: Union[Mapping[str, Content], Iterable[File]]) -> Iterable[File]:
    if isinstance(files, Mapping):
        return [File(path, content) for path, content in files.items()]
    return files


def _file(item: File) -> dict[str, Any]:
    content = item.content.read_bytes() if isinstance(item.content, Path) else item.content
    made: dict[str, Any] = {"path": item.path, "content": data(content)}
    if item.mode is not None:
        made["mode"] = item.mode
    return made
