//! Request bodies that are too large, too slow, too many or too deep.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::Config;
use serde_json::json;
use support::{Backend, capacity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;

async fn backend(change: impl FnOnce(&mut Config)) -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, |config| {
        config.limits.body_bytes = 16 * MIB;
        change(config);
    })
    .await
}

/// Sends the head of a request and the start of its body.
async fn begin(backend: &Backend, framing: &str, start: &[u8]) -> TcpStream {
    let address = backend.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/executions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(start).await.unwrap();
    stream
}

/// The answer, until the server closes the connection.
async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn unfinished_bodies_end_at_the_deadline() {
    let backend = backend(|config| {
        config.limits.body_timeout_ms = 300;
        config.limits.body_bytes_in_flight = 512 * MIB;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(begin(&backend, "content-length: 8388608", b"{").await);
    }

    let health = backend.get("/health").await;
    assert_eq!(health.status, 200, "answered while bodies are unfinished");
    for client in clients {
        let answer = answer(client).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("limits.body_timeout_ms"), "{answer}");
    }
    let metrics = backend.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    let late = metric(&metrics, "cloude_rejected_total{reason=\"body_time\"}");
    assert_eq!(late, 60);
    assert_eq!(metric(&metrics, "cloude_request_bodies_bytes"), 0);
}

#[tokio::test]
async fn bodies_in_flight_are_bounded_and_small_ones_pass() {
    let backend = backend(|config| config.limits.body_bytes_in_flight = 16 * MIB).await;
    let held = begin(&backend, "content-length: 16777216", b"{").await;
    loop {
        let metrics = backend.get("/metrics").await.body;
        let metrics = String::from_utf8_lossy(&metrics);
        if metric(&metrics, "cloude_request_bodies_bytes") == 16 << 20 {
            break;
        }
        tokio::task::yield_now().await;
    }

    let refused = answer(begin(&backend, "content-length: 1048576", b"{").await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 5"), "{refused}");
    // Without a length the maximum is reserved.
    let refused = answer(begin(&backend, "transfer-encoding: chunked", b"1\r\n{\r\n").await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let small = json!({"language": "python", "code": "print 1"});
    assert_eq!(backend.post("/v1/executions", small).await.status, 200);

    drop(held);
    let mut large = json!({"language": "python", "code": "print 1"});
    large["stdin"] = "x".repeat(50 << 10).into();
    large["args"] = json!(["y".repeat(20 << 10)]);
    let answer = backend.post("/v1/executions", large).await;
    assert_eq!(answer.status, 413, "received, and over `limits.code_bytes`");
}

#[tokio::test]
async fn a_content_length_of_10_gb_is_refused_unread() {
    let backend = backend(|_| {}).await;

    let answer = answer(begin(&backend, "content-length: 10000000000", b"").await).await;

    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("limits.body_bytes"), "{answer}");
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let backend = backend(|config| config.limits.body_bytes = 100 << 10).await;
    let chunk = format!("{:x}\r\n{}\r\n", 200 << 10, " ".repeat(200 << 10));

    let stream = begin(&backend, "transfer-encoding: chunked", chunk.as_bytes()).await;

    let answer = answer(stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn json_that_is_10_000_deep_is_refused() {
    let backend = backend(|_| {}).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies = [
        deep.clone(),
        format!(r#"{{"language":"python","code":"print 1","stdin":{deep}}}"#),
        format!(r#"{{"language":"python","code":"print 1","files":{deep}}}"#),
        format!(r#"{{"language":"python","code":"print 1","unknown":{deep}}}"#),
    ];
    for path in ["/v1/executions", "/run"] {
        for body in &bodies {
            let headers = [("content-type", "application/json")];
            let answer = backend.send("POST", path, &headers, body.clone()).await;
            // `/run` ignores unknown fields, which costs no stack.
            let ignored = path == "/run" && !body.starts_with('[');
            let expected = if ignored { 200 } else { 400 };
            assert_eq!(answer.status, expected, "{path}: {}", &body[..60]);
        }
    }
}
