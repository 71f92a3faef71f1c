//! The API over TLS.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloude_backend::config::Tls;
use cloude_backend::http::TlsFiles;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use support::{Backend, capacity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Writes a new certificate of `localhost` and its key.
fn write_pair(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn paths(folder: &Path) -> Tls {
    Tls {
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    }
}

async fn backend(folder: &Path) -> Backend {
    let tls = paths(folder);
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, |config| config.tls = tls).await
}

/// A connection of a client that trusts one certificate.
async fn connect(
    backend: &Backend,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = backend.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Waits until the server's certificate is this one.
async fn served(backend: &Backend, certificate: &CertificateDer<'static>) {
    let start = Instant::now();
    while connect(backend, certificate).await.is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it is not served"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_pair(folder.path());
    let backend = backend(folder.path()).await;

    let mut stream = connect(&backend, &certificate).await.unwrap();
    stream.write_all(HEALTH.as_bytes()).await.unwrap();

    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_client_without_tls_gets_no_http_answer() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let backend = backend(folder.path()).await;

    let mut stream = backend.stream().await;
    stream.write_all(HEALTH.as_bytes()).await.unwrap();

    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_changed_certificate_is_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_pair(folder.path());
    let backend = backend(folder.path()).await;
    let mut open = connect(&backend, &first).await.unwrap();

    let second = write_pair(folder.path());

    served(&backend, &second).await;
    // The connection with the earlier certificate goes on.
    open.write_all(HEALTH.as_bytes()).await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn while_its_new_files_are_invalid_the_old_pair_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_pair(folder.path());
    let backend = backend(folder.path()).await;
    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    let second = write_pair(folder.path());
    let later = std::fs::read(folder.path().join("key.pem")).unwrap();
    // The new certificate with the old key.
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        connect(&backend, &first).await.unwrap();
    }

    std::fs::write(folder.path().join("key.pem"), later).unwrap();

    served(&backend, &second).await;
}

#[tokio::test]
async fn closing_a_tls_connection_cancels_its_execution() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_pair(folder.path());
    let backend = backend(folder.path()).await;
    let mut stream = connect(&backend, &certificate).await.unwrap();
    let body = r#"{"language":"python","code":"hold"}"#;
    let request = format!(
        "POST /v1/executions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    backend.alive(1).await;

    drop(stream);

    backend.alive(0).await;
}

#[test]
fn an_unusable_file_is_an_error_that_names_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let tls = paths(folder.path());
    let error = || TlsFiles::load(&tls).unwrap_err().to_string();
    assert!(error().contains("`tls.certificate`"), "{}", error());

    write_pair(folder.path());
    std::fs::write(&tls.key, "no PEM").unwrap();
    assert!(error().contains("`tls.key`"), "{}", error());

    write_pair(folder.path());
    let key = std::fs::read(&tls.key).unwrap();
    write_pair(folder.path());
    std::fs::write(&tls.key, key).unwrap();
    assert!(
        error().contains("`tls.certificate` with `tls.key`"),
        "{}",
        error()
    );
}
