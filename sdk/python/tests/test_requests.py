"""The requests that the clients send, and the responses that they read."""

from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Connect
from examples import execution, summary
from support import Reply, Server, problem

import cloude
from cloude import errors


def test_run_sends_every_option_under_its_name(connect: Connect, tmp_path: Path) -> None:
    local = tmp_path / "x.bin"
    local.write_bytes(b"\xff")
    with Server(Reply(200, execution())) as server:
        connect(server.url).run(
            "python",
            "print(6 * 7)",
            files={"a.txt": "text", "b.bin": local},
            stdin=b"in",
            args=("a", "b"),
            env={"X": "1"},
            limits={"wall_time_ms": 1000, "compile": {"processes": 4}},
            network=False,
            version=None,
        )
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/executions")
    assert request.json == {
        "language": "python",
        "code": "print(6 * 7)",
        "files": [{"path": "a.txt", "content": "text"}, {"path": "b.bin", "content": {"base64": "/w=="}}],
        "stdin": "in",
        "args": ["a", "b"],
        "env": {"X": "1"},
        "limits": {"wall_time_ms": 1000, "compile": {"processes": 4}},
        "network": False,
    }


def test_files_may_have_modes(connect: Connect) -> None:
    with Server(Reply(200, execution())) as server:
        connect(server.url).run("bash", files=[cloude.File("run.sh", "true", 0o755)], entrypoint="run.sh")
    assert server.requests[0].json["files"] == [{"path": "run.sh", "content": "true", "mode": 0o755}]
    assert "code" not in server.requests[0].json


def test_a_run_that_takes_too_long_is_cancelled(connect: Connect) -> None:
    cancelled = Reply(200, execution(status="error", cause="cancelled"))
    with Server(Reply(200, execution(), waits=True), Reply(202, summary("e7")), cancelled) as server:
        with pytest.raises(cloude.ConnectionFailed, match="[Tt]imeout|timed out"):
            connect(server.url, timeout=0.2).run("python", "1")
    first, again, cancel = server.requests
    assert again.headers["idempotency-key"] == first.headers["idempotency-key"]
    assert again.body == first.body
    assert again.headers["prefer"] == "respond-async"
    assert (cancel.method, cancel.path) == ("DELETE", "/v1/executions/e7")


def test_an_interrupt_cancels_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with Server(Reply(202, summary("e7")), Reply(200, execution())) as server, cloude.Client(server.url) as client:
        monkeypatch.setattr(client._http, "request", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.run("python", "1")
    assert [request.method for request in server.requests] == ["POST", "DELETE"]


def test_an_unknown_option_is_refused_before_any_request(connect: Connect) -> None:
    with Server() as server:
        client = connect(server.url)
        with pytest.raises(TypeError, match="there is no option 'memory'"):
            client.run("python", "1", memory=1)
        with pytest.raises(TypeError, match="args is a list of strings"):
            client.run("python", "1", args="ab")
        with pytest.raises(TypeError, match="there is no option 'callback_url'"):
            client.stream("python", "1", callback_url="https://example.com")
    assert server.requests == []


def test_output_is_text_and_exact_bytes(connect: Connect) -> None:
    raw = base64.b64encode(b"\xff\x00a").decode()
    with Server(Reply(200, execution(stdout={"base64": raw}, stderr="é"))) as server:
        result = connect(server.url).run("c", "…")
    assert result.stdout_bytes == b"\xff\x00a"
    assert result.stdout == "\ufffd\x00a"
    assert (result.stderr, result.stderr_bytes) == ("é", "é".encode())
    assert result.run.stdout_bytes == 3


def test_a_later_server_may_send_more(connect: Connect) -> None:
    with Server(Reply(200, execution(new_field={"a": 1}, cause="new_cause", start="new_start"))) as server:
        assert connect(server.url).run("python", "1").cause == "new_cause"


def test_a_response_of_another_server_is_an_error(connect: Connect) -> None:
    replies = [Reply(200, b"<html>"), Reply(200, {"id": "e1"}), Reply(200, execution(exit_code="0"))]
    with Server(*replies) as server:
        client = connect(server.url)
        for reason in ("answered no JSON", "lacks Execution.language", "unexpected value for Execution.exit_code"):
            with pytest.raises(cloude.ProtocolError, match=reason):
                client.run("python", "1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, cloude.BadRequest),
        (401, cloude.Unauthorized),
        (403, cloude.Forbidden),
        (404, cloude.NotFound),
        (409, cloude.Conflict),
        (413, cloude.TooLarge),
        (418, cloude.ApiError),
        (422, cloude.IdempotencyConflict),
        (429, cloude.TooManyRequests),
        (500, cloude.ServerError),
        (503, cloude.Unavailable),
    ],
)
def test_each_refusal_has_a_class(connect: Connect, status: int, kind: type[cloude.ApiError]) -> None:
    reply = problem(status, type="/problems/x", title="a kind", detail="too much", field="limits.vcpus")
    with Server(reply) as server, pytest.raises(cloude.ApiError) as caught:
        connect(server.url, max_retries=0).run("python", "1")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.field, error.detail) == (status, "limits.vcpus", "too much")
    assert (error.type, error.title) == ("/problems/x", "a kind")
    assert str(error) == f"{status}: limits.vcpus: too much"


def test_the_kinds_of_429_are_told_apart() -> None:
    for type, kind in (("quota", cloude.QuotaExceeded), ("queue-full", cloude.QueueFull)):
        body = json.dumps({"type": f"/problems/{type}", "detail": "…"}).encode()
        error = errors.from_response(429, body, 3.0)
        assert isinstance(error, kind)
        assert isinstance(error, cloude.TooManyRequests)
        assert error.retry_after_s == 3.0


def test_refusals_of_proxies_and_old_endpoints_are_readable() -> None:
    assert errors.from_response(502, b"Bad Gateway\n", None).detail == "Bad Gateway"
    assert errors.from_response(400, b'{"error": "why"}', None).detail == "why"
    assert errors.from_response(500, b"", None).detail == "no reason was given"


def test_a_job_waits_until_the_result_is_there(connect: Connect) -> None:
    replies = [
        Reply(202, summary(), {"location": "/v1/executions/e1"}),
        Reply(202, summary(status="running")),
        Reply(202, summary(status="running")),
        Reply(200, execution()),
    ]
    with Server(*replies) as server:
        job = connect(server.url).submit("python", "1", callback_url="https://example.com/done")
        assert job.status().status == "running"
        assert job.wait().stdout == "42\n"
    assert server.requests[0].headers["prefer"] == "respond-async"
    assert server.requests[0].json["callback_url"] == "https://example.com/done"
    paths = [request.path for request in server.requests[1:]]
    assert paths == ["/v1/executions/e1", "/v1/executions/e1?wait=30s", "/v1/executions/e1?wait=30s"]


def test_a_wait_gives_up_after_its_time_out(connect: Connect) -> None:
    with Server(Reply(202, summary())) as server:
        with pytest.raises(cloude.WaitTimeout, match="has not ended within 0 s") as caught:
            connect(server.url).job("e1").wait(timeout=0)
    assert isinstance(caught.value, TimeoutError)
    assert server.requests[0].path == "/v1/executions/e1?wait=0s"


def test_a_wait_is_shorter_than_the_time_out_of_the_client(connect: Connect) -> None:
    with Server(Reply(202, summary()), Reply(200, execution())) as server:
        connect(server.url, timeout=20).job("e1").wait()
    assert [request.path for request in server.requests] == ["/v1/executions/e1?wait=10s"] * 2


def test_cancel_returns_the_result(connect: Connect) -> None:
    with Server(Reply(200, execution(status="error", cause="cancelled"))) as server:
        assert connect(server.url).job("e1").cancel().cause == "cancelled"
    assert server.requests[0].method == "DELETE"


def test_a_list_continues_over_its_pages(connect: Connect) -> None:
    pages = [
        Reply(200, {"executions": [summary("a"), summary("b")], "next_cursor": "x/y"}),
        Reply(200, {"executions": [summary("c")]}),
    ]
    with Server(*pages) as server:
        found = list(connect(server.url).executions(status="done", labels={"run": "7"}, page_size=2))
    assert [item.id for item in found] == ["a", "b", "c"]
    assert server.requests[0].path == "/v1/executions?limit=2&status=done&label=run%3A7"
    assert server.requests[1].path == "/v1/executions?limit=2&status=done&label=run%3A7&cursor=x%2Fy"


def test_paths_of_artifacts_are_escaped(connect: Connect) -> None:
    with Server(Reply(200, b"\x00\xff"), Reply(206, b"tail")) as server:
        client = connect(server.url)
        assert client.artifact("e1", "out/a b?#%.bin") == b"\x00\xff"
        assert client.output("e1", "stderr", start=4) == b"tail"
    assert server.requests[0].path == "/v1/executions/e1/artifacts/out/a%20b%3F%23%25.bin"
    assert server.requests[1].path == "/v1/executions/e1/stderr?stage=run"
    assert server.requests[1].headers["range"] == "bytes=4-"


def test_both_clients_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, Any]:
        names = {name for name in vars(kind) if not name.startswith("_")} | {"__init__"}
        renamed = {name: "close" if name == "aclose" else name for name in names}
        return {renamed[name]: list(inspect.signature(getattr(kind, name)).parameters) for name in names}

    assert signatures(cloude.Client) == signatures(cloude.AsyncClient)
    assert signatures(cloude.Job) == signatures(cloude.AsyncJob)
    assert signatures(cloude.EventStream) == signatures(cloude.AsyncEventStream)
