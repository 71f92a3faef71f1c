//! Who may attach to an execution, and how much memory that takes.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cloude_backend::config::Auth;
use cloude_protocol::keys::Scope;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use support::attached::{attach, connect, refused, start};
use support::{Backend, capacity};
use tokio_tungstenite::tungstenite::Message;

async fn with_keys() -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, |config| {
        config.api.auth = Auth::Required;
    })
    .await
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

/// Resident memory of this process, which has both ends.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn two_hundred_clients_take_little_memory() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), state, |config| {
        config.limits.connections_per_address = 400;
    })
    .await;
    let id = start(&backend, "echo", json!({})).await;
    let before = resident();

    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(attach(&backend, &id).await);
    }
    sockets[0].send(json!({"stdin": "for all"})).await;
    for socket in &mut sockets {
        socket.until("for all").await;
    }

    let grown = resident().saturating_sub(before);
    println!("{} KiB for each client", grown / 200 / 1024);
    assert!(grown < 40 << 20, "{grown}");
}
