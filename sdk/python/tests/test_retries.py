"""Requests that are sent again."""

from __future__ import annotations

import email.utils
import time

import httpx
import pytest
from conftest import Connect
from examples import execution
from support import Reply, Server, problem

import cloude
from cloude import _retry


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_after_its_delay(connect: Connect, slept: list[float], status: int) -> None:
    busy = problem(status)
    busy.headers["retry-after"] = "7"
    with Server(busy, busy, Reply(200, execution())) as server:
        assert connect(server.url).run("python", "1").exit_code == 0
    assert len(slept) == 2
    assert all(7 <= delay <= 7.7 for delay in slept)


def test_a_broken_connection_is_made_again_with_the_same_key(connect: Connect, slept: list[float]) -> None:
    with Server(Reply(0), Reply(200, b"{", breaks=True), Reply(200, execution())) as server:
        assert connect(server.url).run("python", "1").exit_code == 0
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(keys) == 1
    assert len({request.body for request in server.requests}) == 1
    assert 0.25 <= slept[0] <= 0.5 <= slept[1] <= 1


def test_each_call_has_a_key_of_its_own(connect: Connect) -> None:
    with Server(Reply(200, execution()), Reply(200, execution()), Reply(200, execution())) as server:
        client = connect(server.url)
        client.run("python", "1")
        client.run("python", "1")
        client.run("python", "1", idempotency_key="mine")
    first, second, third = (request.headers["idempotency-key"] for request in server.requests)
    assert first != second
    assert third == "mine"
    assert "idempotency_key" not in server.requests[2].json


def test_retries_end(connect: Connect, slept: list[float]) -> None:
    with Server(Reply(0), problem(503), Reply(0)) as server:
        with pytest.raises(cloude.ConnectionFailed, match=server.url):
            connect(server.url, max_retries=2).run("python", "1")
    # The last one asks for the id of the execution, to cancel it.
    assert [request.headers.get("prefer") for request in server.requests] == [None] * 3 + ["respond-async"]


def test_an_unreachable_server_is_named(connect: Connect, slept: list[float]) -> None:
    with Server() as server:
        url = server.url
    with pytest.raises(cloude.ConnectionFailed, match=f"{url}: .*refused|{url}: All connection attempts failed"):
        connect(url, max_retries=1).run("python", "1")
    assert len(slept) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_other_refusals_are_final(connect: Connect, slept: list[float], status: int) -> None:
    with Server(problem(status)) as server, pytest.raises(cloude.ApiError):
        connect(server.url).run("python", "1")
    assert len(server.requests) == 1
    assert slept == []


def test_a_long_delay_is_left_to_the_caller(connect: Connect, slept: list[float]) -> None:
    busy = problem(429, retry_after_s=3600)
    busy.headers["retry-after"] = "3600"
    with Server(busy) as server, pytest.raises(cloude.TooManyRequests) as caught:
        connect(server.url).run("python", "1")
    assert caught.value.retry_after_s == 3600
    assert slept == []


def test_a_silent_server_is_an_error(connect: Connect) -> None:
    # Port 0 of the backlog: the socket listens, and nobody accepts.
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(cloude.ConnectionFailed, match="ReadTimeout|timed out"):
            connect(url, timeout=0.05).run("python", "1")


def test_retry_after_may_be_a_date() -> None:
    header = email.utils.formatdate(time.time() + 100, usegmt=True)
    delay = _retry.retry_after(httpx.Response(503, headers={"retry-after": header}))
    assert delay is not None
    assert 90 < delay <= 100
    for text in ("soon", "-1", ""):
        assert _retry.retry_after(httpx.Response(503, headers={"retry-after": text})) is None
