//! A backend behind TLS.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use common::{cloude, languages};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::server::TlsStream;

struct Tls(TcpListener, TlsAcceptor);

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            // Fails when the client does not trust the certificate.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Starts a backend, and writes its certificate to a file.
fn start(certificate: &Path) -> (tokio::runtime::Runtime, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, cert.pem()).unwrap();
    let key = signing_key.serialize_der().try_into().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = Tls(listener, TlsAcceptor::from(Arc::new(config)));
    let app = Router::new().route("/v1/languages", get(|| async { Json(languages()) }));
    runtime.spawn(async move { axum::serve(tls, app).await });
    (runtime, format!("https://localhost:{port}"))
}

#[test]
fn a_certificate_is_trusted_if_ca_names_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("ca.pem");
    let (_runtime, url) = start(&certificate);

    let output = cloude()
        .args(["languages", "--backend", &url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("cannot connect") && error.contains("ertificate"),
        "{error}"
    );

    let mut command = cloude();
    command
        .args(["languages", "--backend", &url, "--ca"])
        .arg(&certificate);
    command.assert().success();
    cloude()
        .env("CLOUDE_CA", &certificate)
        .args(["languages", "--backend", &url])
        .assert()
        .success();
}

#[test]
fn a_file_without_certificates_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "nothing").unwrap();

    let output = cloude()
        .args(["languages", "--ca"])
        .arg(&file)
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no certificate in PEM format"), "{error}");
}
