//! DNS rebinding and cross-site requests: the headers `Host` and `Origin`.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloude_backend::config::Listen;
use support::{Backend, capacity};

/// The status of a request with these header lines.
async fn status(backend: &Backend, request: &str, headers: &str) -> u16 {
    let answer = backend
        .raw(&format!(
            "{request} HTTP/1.1\r\n{headers}connection: close\r\n\r\n"
        ))
        .await;
    answer[9..12].parse().unwrap()
}

async fn named(names: &[&str]) -> Backend {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), folder, |config| {
        config.api.allowed_hosts = names.iter().map(|name| (*name).to_owned()).collect();
    })
    .await
}

#[tokio::test]
async fn a_foreign_host_is_misdirected_on_every_endpoint() {
    let backend = Backend::start().await;
    for request in [
        "GET /health",
        "GET /",
        "GET /metrics",
        "GET /v1/templates",
        "GET /nowhere",
        "DELETE /v1/templates/a",
    ] {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "localhost@evil.example",
            "10.0.0.1",
        ] {
            let headers = format!("host: {host}\r\n");
            assert_eq!(
                status(&backend, request, &headers).await,
                421,
                "{request} {host}"
            );
        }
    }
}

#[tokio::test]
async fn a_program_of_a_rebound_page_does_not_run() {
    let backend = Backend::start().await;
    let body = r#"{"language":"python","code":"print x"}"#;
    let answer = backend
        .raw(&format!(
            "POST /v1/executions HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;

    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert!(answer.contains("api.allowed_hosts"), "{answer}");
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_absolute_form_of_a_target_has_no_other_host() {
    let backend = Backend::start().await;
    let request = "GET http://evil.example/health";
    assert_eq!(status(&backend, request, "host: localhost\r\n").await, 421);
}

#[tokio::test]
async fn loopback_names_and_configured_names_are_served() {
    let backend = named(&["cloude.example"]).await;
    for host in [
        "localhost",
        "LocalHost:9",
        "127.0.0.1:8080",
        "127.8.8.8",
        "[::1]:1",
        "cloude.example.",
        "Cloude.Example:443",
    ] {
        let headers = format!("host: {host}\r\n");
        assert_eq!(
            status(&backend, "GET /health", &headers).await,
            200,
            "{host}"
        );
    }
}

#[tokio::test]
async fn on_all_addresses_every_address_and_no_name_is_served() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), folder, |config| {
        config.listen = Listen::Tcp(([0, 0, 0, 0], 0).into());
    })
    .await;
    assert_eq!(
        status(&backend, "GET /health", "host: 192.168.7.1:80\r\n").await,
        200
    );
    assert_eq!(
        status(&backend, "GET /health", "host: evil.example\r\n").await,
        421
    );
}

#[tokio::test]
async fn a_request_without_one_valid_host_is_refused() {
    let backend = Backend::start().await;
    for headers in [
        "",
        "host: \r\n",
        "host: a b\r\n",
        "host: localhost\r\nhost: localhost\r\n",
    ] {
        assert_eq!(
            status(&backend, "GET /health", headers).await,
            400,
            "{headers}"
        );
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused() {
    let backend = named(&["cloude.example"]).await;
    for origin in [
        "http://evil.example",
        "http://localhost:3000",
        "null",
        "file://",
        "https://localhost:8080",
    ] {
        let headers = format!("host: localhost\r\norigin: {origin}\r\n");
        assert_eq!(
            status(&backend, "GET /health", &headers).await,
            403,
            "{origin}"
        );
    }
    for origin in [
        "http://localhost",
        "http://localhost:80",
        "https://cloude.example",
    ] {
        let headers = format!("host: localhost\r\norigin: {origin}\r\n");
        assert_eq!(
            status(&backend, "GET /health", &headers).await,
            200,
            "{origin}"
        );
    }
}
