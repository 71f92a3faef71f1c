//! The commands for executions that run without their client.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use axum::body::Body;
use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use cloude_protocol::Data;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionList, ExecutionSummary, Status};
use cloude_protocol::keys::Usage;
use common::{FakeBackend, Script, ended, exited, result, stdout};

type Asked = Arc<Mutex<Vec<String>>>;

fn backend(routes: Router) -> FakeBackend {
    FakeBackend::routed(Script::Events(Vec::new()), routes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Three executions, at most two on a page.
async fn list(
    State(asked): State<Asked>,
    Query(query): Query<Vec<(String, String)>>,
) -> Json<ExecutionList> {
    let line = query.iter().map(|(name, value)| format!("{name}={value}"));
    asked
        .lock()
        .unwrap()
        .push(line.collect::<Vec<_>>().join("&"));
    let item = |id: &str| ExecutionSummary {
        id: id.to_owned(),
        status: Status::Done,
        language: "python".to_owned(),
        cause: Some(Cause::Exit),
        exit_code: Some(0),
        labels: Default::default(),
        created_ms: 0,
        finished_ms: Some(1),
    };
    let is_second = query.iter().any(|(name, _)| name == "cursor");
    Json(match is_second {
        false => ExecutionList {
            executions: vec![item("c"), item("b")],
            next_cursor: Some("b+1".to_owned()),
        },
        true => ExecutionList {
            executions: vec![item("a")],
            next_cursor: None,
        },
    })
}

fn listing() -> (FakeBackend, Asked) {
    let asked = Asked::default();
    let routes = Router::new()
        .route("/v1/executions", get(list))
        .with_state(asked.clone());
    (backend(routes), asked)
}

#[test]
fn ps_reads_all_pages_with_the_filters() {
    let (backend, asked) = listing();
    let arguments = [
        "ps",
        "-q",
        "--status",
        "done",
        "--language",
        "python",
        "--label",
        "a=b c",
        "--label",
        "x=1",
    ];
    assert_eq!(stdout_of(backend.cloude().args(arguments)), "c\nb\na\n");
    let filters = "status=done&language=python&label=a:b c&label=x:1";
    assert_eq!(
        *asked.lock().unwrap(),
        [
            format!("{filters}&limit=50"),
            format!("{filters}&limit=48&cursor=b+1")
        ]
    );
}

#[test]
fn ps_stops_at_its_limit() {
    let (backend, asked) = listing();
    assert_eq!(
        stdout_of(backend.cloude().args(["ps", "-q", "-n", "1"])),
        "c\n"
    );
    assert_eq!(asked.lock().unwrap().len(), 1);
    let json = stdout_of(backend.cloude().args(["ps", "--json"]));
    let list: Vec<ExecutionSummary> = serde_json::from_str(&json).unwrap();
    assert_eq!(list.len(), 3);
    let table = stdout_of(backend.cloude().arg("ps"));
    assert!(table.starts_with("ID  STATUS"), "{table}");
}

/// Server-sent events in two connections. The first breaks after byte 3; the second starts where the client asks for.
async fn events(State(asked): State<Asked>, headers: HeaderMap) -> Response {
    assert_eq!(headers["accept"], "text/event-stream");
    let last = headers.get("last-event-id");
    let last = last.map_or("", |id| id.to_str().unwrap()).to_owned();
    asked.lock().unwrap().push(last.clone());
    let frame = |name: &str, id: &str, data: &cloude_protocol::api::ExecutionEvent| {
        let data = serde_json::to_string(data).unwrap();
        format!(": alive\n\nevent: {name}\nid: {id}\ndata: {data}\n\n")
    };
    let body = match last.as_str() {
        "" => {
            let half = "event: output\nid: 5\ndata: {\"event\"";
            common::breaks_after(frame("output", "3", &stdout(b"abc")) + half)
        }
        "3" => {
            let unknown = "event: something_new\ndata: {}\n\n";
            let output = frame("output", "5", &stdout(b"de"));
            Body::from(format!(
                "{unknown}{output}{}",
                frame("result", "6", &result(exited(3)))
            ))
        }
        other => panic!("Last-Event-ID is {other:?}"),
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

#[test]
fn logs_follow_resumes_without_a_gap_or_a_repetition() {
    let asked = Asked::default();
    let routes = Router::new()
        .route("/v1/executions/job-1/events", get(events))
        .with_state(asked.clone());
    let output = stdout_of(backend(routes).cloude().args(["logs", "-f", "job-1"]));
    assert_eq!(output, "abcde");
    assert_eq!(*asked.lock().unwrap(), ["", "3"]);
}

#[test]
fn logs_follow_notes_an_end_other_than_an_exit() {
    let event = serde_json::to_string(&result(ended(Cause::Memory, None, Some(9)))).unwrap();
    let body = format!("event: result\nid: 1\ndata: {event}\n\n");
    let routes = Router::new().route(
        "/v1/executions/job-1/events",
        get(|| async { ([("content-type", "text/event-stream")], body) }),
    );
    let backend = backend(routes);
    let output = backend
        .cloude()
        .args(["logs", "-f", "job-1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let error = text(&output.stderr);
    assert!(error.contains("ran out of memory"), "{error}");
}

#[test]
fn logs_prints_each_stream_byte_for_byte() {
    let stream = |compile: &'static [u8], run: &'static [u8]| {
        get(move |RawQuery(query): RawQuery| async move {
            match query.as_deref() {
                Some("stage=compile") => compile,
                None => run,
                other => panic!("unexpected query {other:?}"),
            }
        })
    };
    let routes = Router::new()
        .route("/v1/executions/job-1/stdout", stream(b"", b"\xff\0\r\n"))
        .route("/v1/executions/job-1/stderr", stream(b"warning\n", b"oops"));
    let backend = backend(routes);
    let output = backend.cloude().args(["logs", "job-1"]).output().unwrap();
    assert_eq!(output.stdout, b"\xff\0\r\n");
    assert_eq!(text(&output.stderr), "warning\noops");
    assert_eq!(output.status.code(), Some(0));
}

/// Unfinished when it is asked for the first time.
async fn waited(
    State(asked): State<Asked>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    assert_eq!(query, [("wait".to_owned(), "60s".to_owned())]);
    let mut asked = asked.lock().unwrap();
    asked.push(String::new());
    if asked.len() == 1 {
        let summary = r#"{"id":"job-1","status":"running","language":"python","created_ms":7}"#;
        return (StatusCode::ACCEPTED, summary).into_response();
    }
    Json(Execution {
        stdout: Data(vec![b'a', 0xff]),
        stderr: Data::from("err"),
        ..ended(Cause::WallTime, None, Some(9))
    })
    .into_response()
}

#[test]
fn result_waits_and_exits_as_run_does() {
    let asked = Asked::default();
    let routes = Router::new()
        .route("/v1/executions/job-1", get(waited))
        .with_state(asked.clone());
    let backend = backend(routes);
    let output = backend.cloude().args(["result", "job-1"]).output().unwrap();
    assert_eq!(output.stdout, [b'a', 0xff]);
    let error = text(&output.stderr);
    assert!(
        error.starts_with("errcloude: the program was killed at its time limit"),
        "{error}"
    );
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(asked.lock().unwrap().len(), 2);
    let output = backend
        .cloude()
        .args(["result", "job-1", "--json"])
        .output()
        .unwrap();
    let execution: Execution = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(execution.cause, Cause::WallTime);
}

#[test]
fn usage_is_a_table() {
    let usage = Usage {
        key: "local".to_owned(),
        executions: 3,
        ..Usage::default()
    };
    let routes = Router::new().route("/v1/usage", get(|| async { Json([usage]) }));
    let table = stdout_of(backend(routes).cloude().arg("usage"));
    assert!(table.contains("local  3"), "{table}");
}
