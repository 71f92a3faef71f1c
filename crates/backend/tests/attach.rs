//! `GET /v1/executions/{id}/attach`: the WebSocket of an interactive execution.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::json;
use support::attached::{attach, post, start};
use support::{Backend, capacity};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn input_goes_in_and_events_come_out() {
    let backend = Backend::start().await;
    let id = start(
        &backend,
        "echo",
        json!({"terminal": {"columns": 80, "rows": 24}}),
    )
    .await;
    let mut socket = attach(&backend, &id).await;

    socket.send(json!({"stdin": "text "})).await;
    socket
        .send(json!({"stdin": {"base64": "YmFzZTY0IA=="}}))
        .await;
    let binary = Message::binary(&b"binary\n"[..]);
    socket.0.send(binary).await.unwrap();
    let first = socket.until("binary\n").await;
    socket
        .send(json!({"resize": {"columns": 100, "rows": 30}}))
        .await;
    socket.send(json!({"signal": "INT"})).await;
    socket.send(json!({"signal": 10})).await;
    let second = socket.until("signal 10\n").await;
    socket.send(json!({"close_stdin": true})).await;
    let rest = socket.rest().await;

    let started = json!({"event": "started", "stage": "run"});
    let interactive = json!({"terminal": {"columns": 80, "rows": 24}});
    let accepted = json!({"event": "accepted", "id": id, "interactive": interactive});
    assert_eq!(first.events[0], accepted);
    assert_eq!(first.events[1], started);
    assert_eq!(first.stdout(), "text base64 binary\n");
    assert_eq!(second.stdout(), "100 x 30\nsignal 2\nsignal 10\n");
    let result = rest.events.last().unwrap();
    assert_eq!(
        (&result["event"], &result["exit_code"]),
        (&json!("result"), &json!(0))
    );
    let reason = "the execution has ended".to_owned();
    assert_eq!(rest.close, Some((1000, reason)));
    let asked = backend.world.asked.lock().unwrap().take().unwrap();
    let terminal = asked.interactive.unwrap().terminal.unwrap();
    assert_eq!((terminal.columns, terminal.rows), (80, 24));
}

#[tokio::test]
async fn the_stdin_of_the_request_comes_first() {
    let backend = Backend::start().await;
    let body = json!({"language": "python", "code": "echo", "interactive": {}, "stdin": "first "});
    let answer = post(&backend, body, "respond-async").await.json();
    let mut socket = attach(&backend, answer["id"].as_str().unwrap()).await;

    socket.send(json!({"stdin": "second"})).await;

    assert_eq!(socket.until("second").await.stdout(), "first second");
}

#[tokio::test]
async fn input_before_the_start_waits_for_the_program() {
    let backend = Backend::start().await;
    // The image of rust is not built yet.
    let body = json!({"language": "rust", "code": "echo", "interactive": {}});
    let answer = post(&backend, body, "respond-async").await.json();
    let mut socket = attach(&backend, answer["id"].as_str().unwrap()).await;

    socket.send(json!({"stdin": "early"})).await;
    socket.send(json!({"close_stdin": true})).await;
    backend.world.built.cancel();

    let received = socket.rest().await;
    assert_eq!(received.stdout(), "early");
    assert_eq!(received.close.unwrap().0, 1000);
}

#[tokio::test]
async fn all_attached_clients_have_the_output_and_may_write() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;
    let mut first = attach(&backend, &id).await;
    let mut second = attach(&backend, &id).await;

    first.send(json!({"stdin": "one "})).await;
    let seen = first.until("one ").await.stdout() + &second.until("one ").await.stdout();
    second.send(json!({"stdin": "two"})).await;
    let both = first.until("two").await.stdout() + &second.until("two").await.stdout();

    assert_eq!((seen.as_str(), both.as_str()), ("one one ", "twotwo"));
    // One connection to the agent for all.
    assert_eq!(backend.world.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_program_goes_on_when_all_clients_are_gone() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;
    let mut socket = attach(&backend, &id).await;
    socket.send(json!({"stdin": "before "})).await;
    socket.until("before ").await;
    drop(socket);

    let mut socket = attach(&backend, &id).await;
    socket.send(json!({"stdin": "after"})).await;

    assert_eq!(socket.until("after").await.stdout(), "before after");
}

#[tokio::test]
async fn a_finished_execution_is_replayed() {
    let backend = Backend::start().await;
    let id = start(&backend, "print hello", json!({})).await;
    backend.finished(&id).await;

    let mut socket = attach(&backend, &id).await;
    socket.send(json!({"stdin": "late"})).await;
    let received = socket.rest().await;

    assert_eq!(received.stdout(), "hello");
    assert_eq!(received.events.last().unwrap()["exit_code"], 0);
    assert_eq!(received.close.unwrap().0, 1000);
}

#[tokio::test]
async fn a_signal_overtakes_bytes_that_nobody_reads() {
    let backend = Backend::start().await;
    let id = start(&backend, "deaf", json!({})).await;
    let mut socket = attach(&backend, &id).await;
    socket.until("deaf\n").await;

    socket.send(json!({"stdin": "x"})).await;
    socket.send(json!({"stdin": "x".repeat(60_000)})).await;
    socket.send(json!({"close_stdin": true})).await;
    socket.send(json!({"signal": "USR1"})).await;

    assert_eq!(socket.rest().await.stdout(), "60001");
}

#[tokio::test]
async fn an_invalid_message_closes_with_its_reason() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;
    for (message, reason) in [
        (json!({"stdin": 1}), "invalid message: "),
        (json!({"close": true}), "invalid message: unknown variant"),
        (
            json!({"close_stdin": false}),
            "invalid message: `close_stdin`",
        ),
        (
            json!({"signal": "NOPE"}),
            "invalid message: `signal` must be",
        ),
        (json!({"signal": 65}), "invalid message: `signal` must be"),
        (
            json!({"resize": {"columns": 80, "rows": 24}}),
            "the program has no terminal",
        ),
        (
            json!({"resize": {"columns": 0, "rows": 24}}),
            "`interactive.terminal` has 0 columns",
        ),
    ] {
        let mut socket = attach(&backend, &id).await;
        socket.send(message.clone()).await;
        let (code, found) = socket.rest().await.close.unwrap();
        assert!(
            code == 1008 && found.starts_with(reason),
            "{message}: {code} {found}"
        );
    }
    let plain = json!({"language": "python", "code": "hold"});
    let answer = post(&backend, plain, "respond-async").await.json();
    let mut socket = attach(&backend, answer["id"].as_str().unwrap()).await;
    socket.send(json!({"stdin": "x"})).await;
    let (code, reason) = socket.rest().await.close.unwrap();
    assert_eq!(code, 1008);
    assert!(reason.contains("no `interactive`"), "{reason}");
}

#[tokio::test]
async fn interactive_needs_a_client_that_can_attach() {
    let backend = Backend::start().await;
    let request = json!({"language": "python", "code": "echo", "interactive": {}});

    let waits = backend.post("/v1/executions", request.clone()).await;
    let batch = json!({"request": request, "inputs": [{}]});
    let batch = backend.post("/v1/batches", batch).await;
    let size = json!({"terminal": {"columns": 80, "rows": 1001}});
    let size = json!({"language": "python", "code": "echo", "interactive": size});
    let size = post(&backend, size, "respond-async").await;

    let fields = [&waits, &batch, &size].map(|answer| {
        assert_eq!(answer.status, 400);
        answer.json()["field"].clone()
    });
    assert_eq!(
        fields,
        ["interactive", "interactive", "interactive.terminal"]
    );
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn other_requests_to_the_path_are_refused() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;

    let plain = backend.get(&format!("/v1/executions/{id}/attach")).await;
    let unknown = backend.get("/v1/executions/none/attach").await;

    assert_eq!((plain.status, unknown.status), (400, 404));
    assert!(plain.failure().contains("WebSocket"), "{}", plain.failure());
}

#[tokio::test]
async fn a_program_that_is_not_interactive_has_one_connection() {
    let backend = Backend::start().await;
    let body = json!({"language": "python", "code": "print x"});
    assert_eq!(backend.post("/v1/executions", body).await.status, 200);
    assert_eq!(backend.world.connectors.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn after_a_crash_an_interactive_execution_says_why_it_ended() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let first = Backend::with(capacity(2, 16), Arc::clone(&state), |_| {}).await;
    let id = start(&first, "echo", json!({})).await;
    first.alive(1).await;

    let next = Backend::with(capacity(2, 16), state, |_| {}).await;

    assert_eq!(next.service.recover().await.unwrap(), 0);
    let result = attach(&next, &id).await.rest().await.events.pop().unwrap();
    assert_eq!(result["cause"], "infrastructure");
    let error = result["error"].as_str().unwrap();
    assert!(error.contains("input that it had is not stored"), "{error}");
}

#[tokio::test]
async fn a_stopping_server_closes_its_connections() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;
    let mut socket = attach(&backend, &id).await;
    socket.send(json!({"stdin": "x"})).await;
    socket.until("x").await;

    backend.service.drain();
    backend.service.finish(Duration::ZERO).await;

    let received = socket.rest().await;
    assert_eq!(received.close.unwrap().0, 1012);
    backend.stop.cancel();
}
