//! The API on a Unix socket.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::Listen;
use serde_json::json;
use support::{Backend, capacity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn backend() -> Backend {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("run/api.sock");
    Backend::with(capacity(2, 16), folder, |config| {
        config.listen = Listen::Unix(path);
    })
    .await
}

/// Submits a program that prints `held` and waits.
async fn held(backend: &Backend) -> UnixStream {
    let mut stream = UnixStream::connect(backend.url.strip_prefix("unix:").unwrap())
        .await
        .unwrap();
    let body = json!({"language": "python", "code": "hold"}).to_string();
    let request = format!(
        "POST /v1/executions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    backend.alive(1).await;
    stream
}

#[tokio::test]
async fn a_client_of_the_unix_socket_runs_programs_and_is_local() {
    let backend = backend().await;

    let request = json!({"language": "python", "code": "print x"});
    let answer = backend.post("/v1/executions", request).await;

    assert_eq!(answer.json()["stdout"], "x");
    assert_eq!(backend.get("/v1/installation").await.status, 200);
}

#[tokio::test]
async fn closing_a_unix_connection_cancels_its_execution() {
    let backend = backend().await;
    let stream = held(&backend).await;

    drop(stream);

    backend.alive(0).await;
}

#[tokio::test]
async fn after_closing_half_a_unix_client_gets_the_answer() {
    let backend = backend().await;
    let mut stream = held(&backend).await;

    stream.shutdown().await.unwrap();
    backend.world.go_on.notify_one();

    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("held"), "{answer}");
}

#[tokio::test]
async fn a_foreign_host_is_refused_on_the_unix_socket_too() {
    let backend = backend().await;
    let answer = backend
        .raw("GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}
