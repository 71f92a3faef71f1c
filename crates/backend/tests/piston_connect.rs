//! The WebSocket of Piston v2.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::{Auth, Config};
use cloude_protocol::keys::Scope;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::websocket::{Connection, connect, refused};
use support::{Backend, capacity};
use tokio_tungstenite::tungstenite::Message;

const CONNECT: &str = "/api/v2/connect";

struct Client(Connection);

impl Client {
    async fn of(backend: &Backend) -> Self {
        Client(connect(backend, CONNECT, &[]).await.unwrap())
    }

    async fn running(backend: &Backend, code: &str) -> Self {
        let mut client = Client::of(backend).await;
        client.send(init("python", code)).await;
        assert_eq!(client.next().await["type"], "runtime");
        assert_eq!(client.next().await["type"], "stage");
        client
    }

    async fn send(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.0.send(message).await.unwrap();
    }

    /// The next message; for a close frame its code and reason.
    async fn next(&mut self) -> Value {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(Some(frame)) => {
                    return json!([u16::from(frame.code), frame.reason.as_str()]);
                }
                _ => {}
            }
        }
    }
}

fn init(language: &str, code: &str) -> Value {
    json!({"type": "init", "language": language, "version": "*", "files": [{"content": code}]})
}

fn data(text: &str) -> Value {
    json!({"type": "data", "stream": "stdin", "data": text})
}

async fn with(change: impl FnOnce(&mut Config)) -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, change).await
}

#[tokio::test]
async fn a_program_talks_until_the_end_of_its_input() {
    let backend = Backend::start().await;
    for path in [
        CONNECT,
        "/api/v2/connect/",
        "/api/v2/piston/connect",
        "/api/v2/piston/connect/",
    ] {
        let mut client = Client(connect(&backend, path, &[]).await.unwrap());
        client.send(init("py", "echo")).await;
        let runtime = json!({"type": "runtime", "language": "python", "version": "1.2.3"});
        assert_eq!(client.next().await, runtime);
        let stage = json!({"type": "stage", "stage": "run"});
        assert_eq!(client.next().await, stage);

        client.send(data("Hello World!")).await;
        let output = json!({"type": "data", "stream": "stdout", "data": "Hello World!"});
        assert_eq!(client.next().await, output);
        client
            .send(json!({"type": "signal", "signal": "SIGINT"}))
            .await;
        assert_eq!(client.next().await["data"], "signal 2\n");
        let end = json!({"type": "data", "stream": "stdin", "data": "bye", "eof": true});
        client.send(end).await;
        assert_eq!(client.next().await["data"], "bye");

        let exit = json!({"type": "exit", "stage": "run", "code": 0, "signal": null});
        assert_eq!(client.next().await, exit);
        assert_eq!(client.next().await, json!([4999, "Job Completed"]));
    }
}

#[tokio::test]
async fn a_killed_program_exits_with_its_signal() {
    let backend = Backend::start().await;
    let mut client = Client::running(&backend, "echo").await;
    client
        .send(json!({"type": "signal", "signal": "SIGKILL"}))
        .await;
    let exit = json!({"type": "exit", "stage": "run", "code": null, "signal": "SIGKILL"});
    assert_eq!(client.next().await, exit);
    assert_eq!(client.next().await, json!([4999, "Job Completed"]));
}

#[tokio::test]
async fn a_program_that_does_not_run_is_an_error_message() {
    let backend = Backend::start().await;
    for (language, version, code, message) in [
        ("cow", "*", "moo", "cow-* runtime is unknown"),
        ("python", "9.x", "print x", "python-9.x runtime is unknown"),
        ("go", "*", "print x", "no image"),
    ] {
        let mut client = Client::of(&backend).await;
        let files = json!([{"content": code}]);
        let init =
            json!({"type": "init", "language": language, "version": version, "files": files});
        client.send(init).await;
        let mut error = client.next().await;
        if error["type"] == "runtime" {
            error = client.next().await;
        }
        assert_eq!(error["type"], "error", "{error}");
        let text = error["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
        assert_eq!(client.next().await, json!([4002, "Notified Error"]));
    }
}

#[tokio::test]
async fn every_mistake_has_its_code() {
    let backend = Backend::start().await;
    let close = async |messages: &[Value]| {
        let mut client = Client::running(&backend, "echo").await;
        for message in messages {
            client.send(message.clone()).await;
        }
        client.next().await
    };
    let again = close(&[init("python", "echo")]).await;
    assert_eq!(again, json!([4000, "Already Initialized"]));
    let stdout = json!({"type": "data", "stream": "stdout", "data": "x"});
    let stdout = close(&[stdout]).await;
    assert_eq!(stdout, json!([4004, "Can only write to stdin"]));
    for name in ["SIGNOPE", "INT", "9"] {
        let signal = close(&[json!({"type": "signal", "signal": name})]).await;
        assert_eq!(signal, json!([4005, "Invalid signal"]), "{name}");
    }
    let number = close(&[json!({"type": "data", "stream": "stdin", "data": 1})]).await;
    assert_eq!(number["message"], "data must be a string");
    backend.alive(0).await;

    for message in [data("x"), json!({"type": "signal", "signal": "SIGINT"})] {
        let mut client = Client::of(&backend).await;
        client.send(message).await;
        assert_eq!(client.next().await, json!([4003, "Not yet initialized"]));
    }
    let mut client = Client::of(&backend).await;
    let timeout = json!([4001, "Initialization Timeout"]);
    assert_eq!(client.next().await, timeout);
}

#[tokio::test]
async fn the_program_ends_with_its_connection() {
    let backend = Backend::start().await;
    let client = Client::running(&backend, "echo").await;
    backend.alive(1).await;
    drop(client);
    backend.alive(0).await;
}

#[tokio::test]
async fn only_clients_with_a_key_connect() {
    let backend = with(|config| config.api.auth = Auth::Required).await;
    let (runs, _) = backend.key(&[Scope::Run]).await;
    let (reads, _) = backend.key(&[Scope::Read]).await;

    let statuses = [
        refused(&backend, CONNECT, &[]).await,
        refused(&backend, CONNECT, &[("authorization", &reads)]).await,
    ];
    let bare = connect(&backend, CONNECT, &[("authorization", &runs)]).await;

    assert_eq!(statuses, [401, 403]);
    assert!(bare.is_ok());
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(refused(&backend, CONNECT, &foreign).await, 403);
    let plain = backend.send_as(&runs, "GET", CONNECT, "").await;
    assert_eq!(plain.status, 400);
    assert!(
        plain.json()["message"]
            .as_str()
            .unwrap()
            .contains("WebSocket")
    );
}
