//! Clients that close one or both halves of their connection, over TCP.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// Submits a program that prints `held` and waits, and closes the sending half.
async fn half_closed(backend: &Backend, version: &str, accept: &str) -> TcpStream {
    let address = backend.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = json!({"language": "python", "code": "hold"}).to_string();
    let request = format!(
        "POST /v1/executions {version}\r\nhost: localhost\r\naccept: {accept}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    backend.alive(1).await;
    stream
}

async fn read(stream: &mut TcpStream, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let byte = stream.read_u8().await;
        text.push(char::from(
            byte.unwrap_or_else(|error| panic!("{error} after {text}")),
        ));
    }
    text
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn after_closing_its_sending_half_a_client_gets_the_answer() {
    let backend = Backend::start().await;
    let mut stream = half_closed(&backend, "HTTP/1.1", "*/*").await;
    // The interim response shows that the server has seen the FIN.
    let interim = read(&mut stream, "\r\n\r\n").await;
    assert_eq!(interim, INTERIM);
    backend.world.go_on.notify_one();
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let execution: Value = serde_json::from_str(body).unwrap();
    assert_eq!(execution["stdout"], "held\n");
}

#[tokio::test]
async fn after_closing_its_sending_half_a_client_gets_its_events() {
    let backend = Backend::start().await;
    let mut stream = half_closed(&backend, "HTTP/1.1", "application/x-ndjson").await;
    // The chunk of one byte that probes the connection.
    let head = read(&mut stream, "\r\n1\r\n\n\r\n").await;
    backend.world.go_on.notify_one();
    let text = head + &rest(stream).await;
    assert!(text.contains(r#""event":"accepted""#), "{text}");
    assert!(text.contains("held"), "{text}");
    assert!(text.contains(r#""event":"result""#), "{text}");
}

#[tokio::test]
async fn closing_both_halves_cancels_the_execution() {
    for accept in ["*/*", "application/x-ndjson"] {
        let backend = Backend::start().await;
        let stream = half_closed(&backend, "HTTP/1.1", accept).await;
        drop(stream);
        backend.alive(0).await;
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_response() {
    let backend = Backend::start().await;
    let stream = half_closed(&backend, "HTTP/1.0", "*/*").await;
    backend.world.go_on.notify_one();
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn a_client_on_this_host_gets_the_paths() {
    let backend = Backend::start().await;
    let answer = backend.get("/v1/installation").await;
    assert_eq!(answer.status, 200);
    let state = backend.state.path().display().to_string();
    assert_eq!(answer.json()["state_dir"], state.as_str());
}

#[tokio::test]
async fn an_address_with_too_many_connections_gets_503() {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(support::capacity(2, 16), state, |config| {
        config.limits.connections_per_address = 3;
    })
    .await;
    let address = backend.url.trim_start_matches("http://");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The answer shows that the connection is counted.
        let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        read(&mut stream, "clouded").await;
        held.push(stream);
    }

    let refused = rest(TcpStream::connect(address).await.unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.contains("limits.connections_per_address"),
        "{refused}"
    );
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );

    drop(held.pop());
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}

#[tokio::test]
async fn headers_that_do_not_arrive_end_the_connection() {
    let backend = Backend::start().await;
    let address = backend.url.trim_start_matches("http://");
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ")
        .await
        .unwrap();
    // Each byte would restart a time-out between reads.
    let mut answer = Vec::new();
    while let Err(error) = slow.try_read_buf(&mut answer) {
        // A byte that is sent after the end of the connection is answered with a RST.
        if error.kind() == std::io::ErrorKind::ConnectionReset {
            break;
        }
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        let _ = slow.write_all(b"x").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(answer.is_empty(), "{answer:?}");
    assert_eq!(backend.get("/health").await.status, 200);
}
