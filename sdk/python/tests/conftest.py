"""Each test that takes `connect` runs with the blocking and with the asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from support import Blocking

import cloude

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLOUDE_BACKEND", "CLOUDE_API_KEY", "CLOUDE_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays before retries, which take no time here."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr("cloude._sync.time.sleep", delays.append)
    monkeypatch.setattr("cloude._async.asyncio.sleep", sleep)
    return delays


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client, which is closed after the test."""
    loop = asyncio.new_event_loop()
    made: list[Any] = []

    def make(url: str, **options: Any) -> Any:
        if request.param == "sync":
            made.append(cloude.Client(url, **options))
        else:
            made.append(Blocking(cloude.AsyncClient(url, **options), loop))
        return made[-1]

    yield make
    for client in made:
        client.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
