//! Events, output and artifacts of an execution for readers that did not start it.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_protocol::api::{Execution, ExecutionEvent};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use serde_json::json;
use support::fake_vm::content;
use support::{Answer, Backend, capacity};

async fn server(state: &Arc<tempfile::TempDir>) -> Backend {
    // Without a cache, finished executions are read from the store.
    Backend::with(capacity(4, 64), Arc::clone(state), |config| {
        config.store.cache_bytes = 1 << 20;
    })
    .await
}

/// The id of a new durable execution.
async fn start(backend: &Backend, program: serde_json::Value) -> String {
    let headers = [
        ("content-type", "application/json"),
        ("prefer", "respond-async"),
    ];
    let answer = backend
        .send("POST", "/v1/executions", &headers, program.to_string())
        .await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn python(code: &str) -> serde_json::Value {
    json!({"language": "python", "code": code})
}

async fn finished(backend: &Backend, id: &str) -> Execution {
    let path = format!("/v1/executions/{id}?wait=60s");
    serde_json::from_slice(&backend.get(&path).await.body).unwrap()
}

/// A reader of server-sent events.
struct Reader {
    body: Incoming,
    text: String,
    _connection: tokio::task::JoinHandle<()>,
}

impl Reader {
    async fn of(backend: &Backend, id: &str, after: Option<&str>) -> Self {
        let (mut sender, connection) = backend.connect().await;
        let mut request =
            Request::get(format!("/v1/executions/{id}/events")).header("host", "localhost");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Reader {
            body: response.into_body(),
            text: String::new(),
            _connection: connection,
        }
    }

    /// The next event and its id; `None` at the end.
    async fn next(&mut self) -> Option<(String, ExecutionEvent)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                // Others are comments.
                if let Some(data) = field("data: ") {
                    return Some((field("id: ").unwrap(), serde_json::from_str(&data).unwrap()));
                }
                continue;
            }
            let frame = self.body.frame().await?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&frame).unwrap());
        }
    }

    /// Reads until the output has `text`, and returns the last id.
    async fn until(&mut self, output: &mut String, text: &str) -> String {
        loop {
            let (id, event) = self.next().await.unwrap();
            if let ExecutionEvent::Output { data, .. } = event {
                output.push_str(&data.to_text());
            }
            if output.contains(text) {
                return id;
            }
        }
    }

    /// All further events.
    async fn rest(&mut self) -> Vec<(String, ExecutionEvent)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn output(events: &[(String, ExecutionEvent)]) -> String {
    let mut output = String::new();
    for (_, event) in events {
        if let ExecutionEvent::Output { data, .. } = event {
            output.push_str(&data.to_text());
        }
    }
    output
}

fn names(events: &[(String, ExecutionEvent)]) -> Vec<String> {
    let name = |event: &ExecutionEvent| serde_json::to_value(event).unwrap()["event"].clone();
    let names = events.iter().map(|(_, event)| name(event));
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

const STEPS: &str = "step 0\nstep 1\nstep 2\nstep 3\nend\n";

#[tokio::test]
async fn many_readers_each_get_all_events() {
    let backend = Backend::start().await;
    let id = start(&backend, python("steps 4")).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = Reader::of(&backend, &id, None).await;
        let (_, first) = reader.next().await.unwrap();
        assert_eq!(
            first,
            ExecutionEvent::Accepted {
                id: id.clone(),
                interactive: None
            }
        );
        readers.push(reader);
    }
    backend.alive(1).await;
    backend.world.go_on.notify_one();

    for mut reader in readers {
        let events = reader.rest().await;
        assert_eq!(output(&events), STEPS);
        assert_eq!(names(&events).last().unwrap(), "result");
    }
    let late = Reader::of(&backend, &id, None).await.rest().await;
    assert_eq!(output(&late), STEPS, "after the end, in the same order");
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_cancel_the_execution() {
    let backend = Backend::start().await;
    let id = start(&backend, python("steps 1")).await;
    let mut reader = Reader::of(&backend, &id, None).await;
    reader.until(&mut String::new(), "step 0").await;
    drop(reader);
    backend.world.go_on.notify_one();

    assert_eq!(
        finished(&backend, &id).await.stdout.to_text(),
        "step 0\nend\n"
    );
}

#[tokio::test]
async fn each_event_id_resumes_without_a_missing_or_repeated_byte() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let id = start(&backend, python("steps 4")).await;
    let mut reader = Reader::of(&backend, &id, None).await;
    let mut seen = String::new();
    let middle = reader.until(&mut seen, "step 1").await;
    // While it runs.
    let mut resumed = Reader::of(&backend, &id, Some(&middle)).await;
    backend.world.go_on.notify_one();
    assert_eq!(seen.clone() + &output(&resumed.rest().await), STEPS);
    let all = Reader::of(&backend, &id, None).await.rest().await;

    // After a restart.
    let next = server(&state).await;
    assert_eq!(next.service.recover().await.unwrap(), 0);
    for (at, (event_id, _)) in all.iter().enumerate() {
        if at + 1 == all.len() {
            let headers = [("last-event-id", event_id.as_str())];
            let path = format!("/v1/executions/{id}/events");
            let answer = next.send("GET", &path, &headers, "").await;
            assert_eq!(answer.status, 204, "it has all events");
            continue;
        }
        let rest = Reader::of(&next, &id, Some(event_id)).await.rest().await;
        assert_eq!(rest, all[at + 1..], "after {event_id}");
    }
}

#[tokio::test]
async fn a_reader_of_a_run_before_a_crash_is_told_to_start_over() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let first = server(&state).await;
    let id = start(&first, python("steps 4")).await;
    let mut reader = Reader::of(&first, &id, None).await;
    let last = reader.until(&mut String::new(), "step 2").await;

    let next = server(&state).await;
    assert_eq!(next.service.recover().await.unwrap(), 1);
    next.alive(1).await;
    next.world.go_on.notify_one();
    let events = Reader::of(&next, &id, Some(&last)).await.rest().await;

    assert_eq!(names(&events)[..2], ["restarted", "started"]);
    assert_eq!(output(&events), STEPS);
}

#[tokio::test]
async fn a_stop_of_the_server_ends_the_streams_of_durable_executions() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let id = start(&backend, python("steps 1")).await;
    let mut reader = Reader::of(&backend, &id, None).await;
    reader.until(&mut String::new(), "step 0").await;

    backend.service.drain();
    backend.service.finish(std::time::Duration::ZERO).await;

    assert!(reader.rest().await.is_empty(), "and there is no result");
}

#[tokio::test]
async fn events_of_an_execution_that_was_waited_for_can_be_read() {
    let backend = Backend::start().await;
    let answer = backend.post("/v1/executions", python("exit 3")).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();

    let events = Reader::of(&backend, &id, None).await.rest().await;

    assert_eq!(names(&events), ["accepted", "started", "output", "result"]);
    assert_eq!(output(&events), "bye\n");
}

#[tokio::test]
async fn a_request_can_stream_server_sent_events() {
    let backend = Backend::start().await;
    let headers = [
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
    ];
    let body = python("print hi").to_string();

    let answer = backend.send("POST", "/v1/executions", &headers, body).await;

    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let kinds: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(kinds, ["accepted", "started", "output", "result"]);
}

#[tokio::test]
async fn a_foreign_event_id_is_refused() {
    let backend = Backend::start().await;
    let id = start(&backend, python("print x")).await;
    let headers = [("last-event-id", "17")];
    let path = format!("/v1/executions/{id}/events");
    let answer = backend.send("GET", &path, &headers, "").await;
    assert_eq!(answer.status, 400);
    let unknown = backend.get("/v1/executions/x/events").await;
    assert_eq!(unknown.status, 404);
}

async fn ranged(backend: &Backend, path: &str, range: &str) -> Answer {
    backend.send("GET", path, &[("range", range)], "").await
}

#[tokio::test]
async fn a_range_of_the_output_is_206_and_one_past_it_416() {
    let backend = Backend::start().await;
    let id = start(&backend, python("leave a 1")).await;
    finished(&backend, &id).await;
    let path = format!("/v1/executions/{id}/stdout");

    let whole = backend.get(&path).await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(whole.headers["content-type"], "application/octet-stream");
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let part = ranged(&backend, &path, "bytes=2-4").await;
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert_eq!(part.headers["content-range"], "bytes 2-4/10");
    let past = ranged(&backend, &path, "bytes=10-").await;
    assert_eq!(past.status, 416);
    assert_eq!(past.headers["content-range"], "bytes */10");
    let stderr = backend.get(&format!("/v1/executions/{id}/stderr")).await;
    assert_eq!((stderr.status, stderr.body.len()), (200, 0));
}

#[tokio::test]
async fn output_so_far_is_there_while_the_program_runs() {
    let backend = Backend::start().await;
    let id = start(&backend, python("steps 2")).await;
    let mut reader = Reader::of(&backend, &id, None).await;
    reader.until(&mut String::new(), "step 1").await;

    let stdout = backend.get(&format!("/v1/executions/{id}/stdout")).await;

    assert_eq!(&stdout.body[..], b"step 0\n");
    let artifacts = backend.get(&format!("/v1/executions/{id}/artifacts")).await;
    assert_eq!(artifacts.status, 409, "they come at the end");
}

#[tokio::test]
async fn artifacts_are_served_from_memory_and_from_the_store() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let large = (2 << 20) + 17;
    let mut program = python(&format!("leave out/large.bin {large},a.txt 3,none 0"));
    program["artifacts"] = json!(["**"]);
    let id = start(&backend, program).await;
    let execution = finished(&backend, &id).await;
    let listed: Vec<_> = execution
        .artifacts
        .iter()
        .map(|it| (&*it.path, it.bytes))
        .collect();
    assert_eq!(
        listed,
        [("a.txt", 3), ("none", 0), ("out/large.bin", large as u64)]
    );

    let next = server(&state).await;
    for server in [&backend, &next] {
        let base = format!("/v1/executions/{id}/artifacts");
        let list = server.get(&base).await.json();
        assert_eq!(list[0], json!({"path": "a.txt", "bytes": 3, "mode": 0o640}));
        for (path, bytes) in [("out/large.bin", large), ("a.txt", 3), ("none", 0)] {
            let answer = server.get(&format!("{base}/{path}")).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body == content(bytes), "{path}");
            assert_eq!(answer.headers["content-disposition"], "attachment");
        }
        let path = format!("{base}/out/large.bin");
        let part = ranged(server, &path, "bytes=1048570-1048585").await;
        assert_eq!(&part.body[..], &content(large)[1_048_570..=1_048_585]);
        let unknown = server.get(&format!("{base}/../a.txt")).await;
        assert_eq!(unknown.status, 404);
    }
}

#[tokio::test]
async fn artifacts_past_the_limit_are_counted() {
    let backend = Backend::start().await;
    let mut program = python("leave a 60,b 60,c 41");
    program["artifacts"] = json!(["**"]);
    program["limits"] = json!({"artifact_bytes": 100});

    let execution = backend.post("/v1/executions", program).await.json();

    assert_eq!(execution["artifacts"].as_array().unwrap().len(), 1);
    assert_eq!(execution["artifacts_dropped"], 2);
}
