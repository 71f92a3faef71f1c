//! `GET /v1/executions/{id}/attach`: the WebSocket of an interactive execution.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloude_backend::config::Auth;
use cloude_protocol::Data;
use cloude_protocol::keys::Scope;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::websocket::{self, Connection, Headers};
use support::{Answer, Backend, capacity};
use tokio_tungstenite::tungstenite::{self, Message};

struct Socket(Connection);

/// What the server sent: events, and the close frame's code and reason.
#[derive(Debug, Default)]
struct Received {
    events: Vec<Value>,
    close: Option<(u16, String)>,
}

impl Received {
    fn stdout(&self) -> String {
        let output = |event: &Value| match event["event"] == "output" {
            true => {
                serde_json::from_value::<Data>(event["data"].clone())
                    .unwrap()
                    .0
            }
            false => Vec::new(),
        };
        let bytes: Vec<u8> = self.events.iter().flat_map(output).collect();
        String::from_utf8(bytes).unwrap()
    }
}

impl Socket {
    async fn send(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.0.send(message).await.unwrap();
    }

    /// The next event; none if the server closes the connection.
    async fn event(&mut self, received: &mut Received) -> bool {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    received.events.push(serde_json::from_str(&text).unwrap());
                    return true;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    received.close = Some((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    async fn until(&mut self, text: &str) -> Received {
        let mut received = Received::default();
        while !received.stdout().contains(text) {
            assert!(self.event(&mut received).await, "{received:?}");
        }
        received
    }

    async fn rest(mut self) -> Received {
        let mut received = Received::default();
        while self.event(&mut received).await {}
        received
    }
}

fn path(id: &str) -> String {
    format!("/v1/executions/{id}/attach")
}

async fn connect(
    backend: &Backend,
    id: &str,
    headers: Headers<'_>,
) -> Result<Socket, tungstenite::Error> {
    let connected = websocket::connect(backend, &path(id), headers).await;
    connected.map(Socket)
}

async fn attach(backend: &Backend, id: &str) -> Socket {
    connect(backend, id, &[]).await.unwrap()
}

async fn refused(backend: &Backend, id: &str, headers: Headers<'_>) -> u16 {
    websocket::refused(backend, &path(id), headers).await
}

async fn post(backend: &Backend, body: Value, prefer: &'static str) -> Answer {
    let headers = [("content-type", "application/json"), ("prefer", prefer)];
    let body = body.to_string();
    backend.send("POST", "/v1/executions", &headers, body).await
}

/// The id of a new execution.
async fn start(backend: &Backend, code: &str, interactive: Value) -> String {
    let body = json!({"language": "python", "code": code, "interactive": interactive});
    let answer = post(backend, body, "respond-async").await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn with_keys() -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, |config| {
        config.api.auth = Auth::Required;
    })
    .await
}

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
async fn a_client_that_writes_faster_than_the_program_waits() {
    let backend = Backend::start().await;
    let id = start(&backend, "deaf", json!({})).await;
    let mut socket = attach(&backend, &id).await;
    socket.until("deaf\n").await;
    let (mut sink, mut source) = socket.0.split();

    // Much more than the buffers of both sockets.
    let mut sent = 0;
    let piece = vec![b'x'; 256 << 10];
    let flood = async {
        while sent < 1 << 30 {
            sink.send(Message::binary(piece.clone())).await.unwrap();
            sent += piece.len();
        }
    };
    let stalled = tokio::time::timeout(Duration::from_secs(3), flood).await;

    assert!(stalled.is_err(), "{sent} bytes are in memory");
    assert!(sent < 64 << 20, "{sent}");
    drop(sink);
    let id = format!("/v1/executions/{id}");
    let cancelled = backend.send("DELETE", &id, &[], "").await;
    assert_eq!(cancelled.json()["cause"], "cancelled");
    while let Some(Ok(_)) = source.next().await {}
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
async fn a_message_over_the_limit_closes_the_connection() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;
    let mut socket = attach(&backend, &id).await;

    let large = Message::binary(vec![0; (256 << 10) + 1]);
    socket.0.send(large).await.unwrap();

    let close = socket.rest().await.close;
    assert!(close.is_none_or(|(code, _)| code == 1009));
}

#[tokio::test]
async fn a_foreign_web_page_cannot_attach() {
    let backend = Backend::start().await;
    let id = start(&backend, "echo", json!({})).await;

    let foreign = refused(&backend, &id, &[("origin", "https://evil.example")]).await;
    let rebound = refused(&backend, &id, &[("host", "evil.example")]).await;
    let own = connect(&backend, &id, &[("origin", "http://localhost")]).await;

    assert_eq!((foreign, rebound), (403, 421));
    assert!(own.is_ok());
}

#[tokio::test]
async fn only_its_owner_attaches_to_an_execution() {
    let backend = with_keys().await;
    let (owner, _) = backend.key(&[Scope::Run]).await;
    let (other, _) = backend.key(&[Scope::Run]).await;
    let (reader, _) = backend.key(&[Scope::Read]).await;
    let body = json!({"language": "python", "code": "echo", "interactive": {}}).to_string();
    let bearer = |key: &str| format!("Bearer {key}");
    let headers = [
        ("content-type", "application/json"),
        ("prefer", "respond-async"),
        ("authorization", &bearer(&owner)),
    ];
    let answer = backend.send("POST", "/v1/executions", &headers, body).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();

    let mut statuses = vec![refused(&backend, &id, &[]).await];
    for key in [&other, &reader] {
        let key = bearer(key);
        statuses.push(refused(&backend, &id, &[("authorization", &key)]).await);
    }
    assert_eq!(statuses, [401, 404, 403]);
    // As a web page does, which cannot send the header.
    let protocols = format!("cloude.v1, cloude.key.{owner}");
    let offers = [("sec-websocket-protocol", protocols.as_str())];
    let mut socket = connect(&backend, &id, &offers).await.unwrap();
    socket.send(json!({"stdin": "mine"})).await;
    assert_eq!(socket.until("mine").await.stdout(), "mine");
}

#[tokio::test]
async fn a_revoked_key_closes_its_connections() {
    let backend = with_keys().await;
    let (admin, _) = backend.key(&[Scope::Admin]).await;
    let (key, id_of_key) = backend.key(&[Scope::Run]).await;
    let bearer = format!("Bearer {key}");
    let headers = [
        ("content-type", "application/json"),
        ("prefer", "respond-async"),
        ("authorization", &bearer),
    ];
    let body = json!({"language": "python", "code": "echo", "interactive": {}}).to_string();
    let answer = backend.send("POST", "/v1/executions", &headers, body).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let offers = [("authorization", bearer.as_str())];
    let mut socket = connect(&backend, &id, &offers).await.unwrap();
    socket.send(json!({"stdin": "x"})).await;
    socket.until("x").await;

    let path = format!("/v1/keys/{id_of_key}");
    assert_eq!(
        backend.send_as(&admin, "DELETE", &path, "").await.status,
        204
    );

    let (code, reason) = socket.rest().await.close.unwrap();
    assert_eq!(code, 1008);
    assert!(reason.contains("revoked"), "{reason}");
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
async fn a_client_that_reads_nothing_is_disconnected() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), state, |config| {
        config.limits.write_timeout_ms = 300;
        config.limits.output_bytes = 64 << 20;
        config.limits.max_output_bytes = 64 << 20;
    })
    .await;
    // MiB of output, more than the buffers of both sockets.
    let id = start(&backend, "fill 32 120", json!({})).await;
    let socket = attach(&backend, &id).await;

    let late = "cloude_rejected_total{reason=\"write_time\"} 1";
    while !backend.service.metrics().await.contains(late) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    drop(socket);
    // The program was not stopped by its reader.
    while backend.get("/v1/executions").await.json()["executions"][0]["status"] != "done" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
