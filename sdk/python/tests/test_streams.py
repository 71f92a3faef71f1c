"""Streams of events, and their resumption."""

from __future__ import annotations

import json

import pytest
from conftest import Connect
from examples import execution, output, result
from support import Reply, Server, events, problem

import cloude
from cloude._events import EventReader

ACCEPTED = ("0", {"event": "accepted", "id": "e1"})


def test_events_come_in_order(connect: Connect) -> None:
    items = [
        ACCEPTED,
        ("2", {"event": "started", "stage": "run"}),
        ("3", output("4")),
        ("4", {"event": "of_a_later_version"}),
        ("5", {"event": "dropped", "stage": "run", "stream": "stdout", "bytes": 9}),
        ("6", output({"base64": "/w=="}, "stderr")),
        ("7", result()),
    ]
    with Server(events(*items)) as server:
        got = list(connect(server.url).stream("python", "print(4)"))
    assert got[:-1] == [
        cloude.Accepted("e1"),
        cloude.Started("run"),
        cloude.Output("run", "stdout", b"4"),
        cloude.Dropped("run", "stdout", 9),
        cloude.Output("run", "stderr", b"\xff"),
    ]
    assert isinstance(got[-1], cloude.Result)
    assert got[-1].execution.exit_code == 0
    assert len(server.requests) == 1
    assert (server.requests[0].method, server.requests[0].path) == ("POST", "/v1/executions")
    assert server.requests[0].headers["accept"] == "text/event-stream"
    assert server.requests[0].json == {"language": "python", "code": "print(4)"}


def test_a_broken_stream_continues_after_the_last_whole_event(connect: Connect, slept: list[float]) -> None:
    cut = events(ACCEPTED, ("run:stdout:1", output("a")), breaks=True)
    cut.body += b'id: run:stdout:2\ndata: {"event": "output", "st'
    replies = [cut, Reply(0), problem(503), events(("run:stdout:2", output("b")), ("end", result()))]
    with Server(*replies) as server:
        got = list(connect(server.url).stream("python", "1"))
    assert [item.text for item in got if isinstance(item, cloude.Output)] == ["a", "b"]
    assert "last-event-id" not in server.requests[0].headers
    assert [request.headers["last-event-id"] for request in server.requests[1:]] == ["run:stdout:1"] * 3
    assert {request.path for request in server.requests[1:]} == {"/v1/executions/e1/events"}


def test_a_stream_that_breaks_before_its_id_is_asked_for_again(connect: Connect, slept: list[float]) -> None:
    with Server(Reply(0), events(), events(ACCEPTED, ("1", result()))) as server:
        assert len(list(connect(server.url).stream("python", "1"))) == 2
    assert {(request.method, request.path) for request in server.requests} == {("POST", "/v1/executions")}
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


def test_a_stream_that_ends_without_a_result_is_resumed(connect: Connect, slept: list[float]) -> None:
    with Server(events(("1", output("a"))), events(("2", result()))) as server:
        got = list(connect(server.url).job("e1").events())
    assert len(got) == 2
    assert server.requests[1].headers["last-event-id"] == "1"


def test_a_stream_that_never_continues_is_an_error(connect: Connect, slept: list[float]) -> None:
    empty = events()
    with Server(events(("1", output("a"))), empty, empty, empty) as server:
        with pytest.raises(cloude.ConnectionFailed, match="ended the stream before its result"):
            list(connect(server.url, max_retries=3).job("e1").events())
    assert len(server.requests) == 4


def test_a_restart_is_told(connect: Connect) -> None:
    items = [("0:1", output("a")), ("1:0", {"event": "restarted", "id": "e1"}), ("1:1", output("a")), ("z", result())]
    with Server(events(*items)) as server:
        got = list(connect(server.url).job("e1").events())
    assert got[1] == cloude.Restarted("e1")


def test_leaving_a_stream_early_cancels_its_execution(connect: Connect) -> None:
    cancelled = Reply(200, execution(status="error", cause="cancelled"))
    with Server(events(ACCEPTED, ("1", output("a")), breaks=True), cancelled) as server:
        stream = connect(server.url).stream("python", "1")
        for event in stream:
            if event == cloude.Output("run", "stdout", b"a"):
                break
        stream.close()
    assert [(request.method, request.path) for request in server.requests[1:]] == [("DELETE", "/v1/executions/e1")]


def test_a_refused_start_is_not_sent_again(connect: Connect) -> None:
    with Server(problem(400)) as server, pytest.raises(cloude.BadRequest):
        list(connect(server.url).stream("python", "1"))
    assert len(server.requests) == 1


def test_leaving_the_events_of_a_job_cancels_nothing(connect: Connect) -> None:
    with Server(events(("1", output("a")), breaks=True)) as server:
        stream = connect(server.url).job("e1").events()
        for _ in stream:
            break
        stream.close()
    assert len(server.requests) == 1


def test_a_refused_stream_is_an_error(connect: Connect) -> None:
    with Server(problem(404)) as server, pytest.raises(cloude.NotFound):
        list(connect(server.url).job("nobody").events())


def test_the_reader_takes_bytes_cut_anywhere() -> None:
    text = f": keep-alive\r\nretry: 1500\r\nid: 7\r\nevent: output\r\ndata:{json.dumps(output('é€'))}\r\n\r\n"
    text += "id: 8\ndata: {\ndata: " + json.dumps(output("x"))[1:] + "\n\nevent: none\n\n"
    raw = text.encode().replace(b"\\u00e9", "é".encode())
    for size in (1, 2, 3, 1000):
        reader = EventReader()
        reader.connect()
        got = [event for at in range(0, len(raw), size) for event in reader.feed(raw[at : at + size])]
        assert [event.text for event in got if isinstance(event, cloude.Output)] == ["é€", "x"]
        assert reader.reconnect_after_s == 1.5
        assert reader.connect()["last-event-id"] == "8"


def test_an_event_that_is_no_json_is_an_error() -> None:
    for line in (b"data: {\n\n", b"data: 3\n\n", b'data: {"event": "output"}\n\n'):
        with pytest.raises(cloude.ProtocolError):
            EventReader().feed(line)
