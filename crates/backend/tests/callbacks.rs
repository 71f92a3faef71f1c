//! Callbacks: signed results, posted until they are delivered.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloude_backend::config::Config;
use cloude_protocol::api::Execution;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use support::{Backend, capacity};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A client's server. It answers the posts with these statuses, and then with 200.
struct Receiver {
    url: String,
    posts: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    /// The method of the last one.
    method: Arc<Mutex<Method>>,
}

impl Receiver {
    async fn answering(statuses: Vec<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/done", listener.local_addr().unwrap());
        let (sender, posts) = mpsc::unbounded_channel();
        let method = Arc::new(Mutex::new(Method::GET));
        let last = Arc::clone(&method);
        tokio::spawn(async move {
            let mut statuses = statuses.into_iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let status = statuses.next().unwrap_or(200);
                let (sender, last) = (sender.clone(), Arc::clone(&last));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let sender = sender.clone();
                    *last.lock().unwrap() = request.method().clone();
                    async move {
                        let headers = request.headers().clone();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let _ = sender.send((headers, body));
                        let mut response = Response::new(Full::new(Bytes::new()));
                        *response.status_mut() = status.try_into().unwrap();
                        let close = "close".try_into().unwrap();
                        response.headers_mut().insert("connection", close);
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
        Receiver { url, posts, method }
    }
}

fn configure(config: &mut Config) {
    config.callbacks.secret = "key".parse().unwrap();
    config.callbacks.allow = vec!["127.0.0.0/8".into()];
    config.callbacks.retry_ms = 1;
}

async fn server(state: &Arc<tempfile::TempDir>) -> Backend {
    Backend::with(capacity(2, 16), Arc::clone(state), configure).await
}

fn deliver(backend: &Backend) {
    let service = backend.service.clone();
    tokio::spawn(async move {
        service
            .deliver_callbacks(cloude_backend::http::callback)
            .await
    });
}

/// The id of a new execution with a callback.
async fn start(backend: &Backend, url: &str) -> String {
    let answer = post(backend, url).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn post(backend: &Backend, url: &str) -> support::Answer {
    let body = json!({"language": "python", "code": "print x", "callback_url": url});
    let headers = [
        ("content-type", "application/json"),
        ("prefer", "respond-async"),
    ];
    backend
        .send("POST", "/v1/executions", &headers, body.to_string())
        .await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

#[tokio::test]
async fn a_result_is_posted_with_a_signature() {
    let backend = server(&Arc::new(tempfile::tempdir().unwrap())).await;
    let mut receiver = Receiver::answering(Vec::new()).await;
    deliver(&backend);
    let id = start(&backend, &receiver.url).await;

    let (headers, body) = receiver.posts.recv().await.unwrap();

    let execution: Execution = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (execution.id, execution.stdout.to_text()),
        (id.clone(), "x".into())
    );
    assert_eq!(header(&headers, "cloude-execution"), id);
    assert_eq!(header(&headers, "cloude-delivery"), "1");
    assert_eq!(header(&headers, "content-type"), "application/json");
    check_signature(&headers, &body);
    assert_eq!(*receiver.method.lock().unwrap(), Method::POST);
}

fn check_signature(headers: &HeaderMap, body: &[u8]) {
    let signature = header(headers, "cloude-signature");
    let (time, hash) = signature
        .strip_prefix("t=")
        .unwrap()
        .split_once(",v1=")
        .unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"key");
    let signed = [time.as_bytes(), b".", body].concat();
    let hash = const_hex::decode(hash).unwrap();
    ring::hmac::verify(&key, &signed, &hash).unwrap();
}

#[tokio::test]
async fn a_submission_of_judge0_is_put_as_judge0_does() {
    let backend = server(&Arc::new(tempfile::tempdir().unwrap())).await;
    let mut receiver = Receiver::answering(vec![500]).await;
    deliver(&backend);
    let body = json!({
        "language_id": 71, "source_code": "print é", "expected_output": "x", "callback_url": receiver.url,
    });
    let created = backend.post("/submissions", body).await;
    assert_eq!(created.status, 201, "{:?}", created.body);

    for number in ["1", "2"] {
        let (headers, body) = receiver.posts.recv().await.unwrap();
        assert_eq!(header(&headers, "cloude-delivery"), number);
        assert_eq!(*receiver.method.lock().unwrap(), Method::PUT);
        check_signature(&headers, &body);
        let expected = json!({
            "token": created.json()["token"], "time": "0.001", "memory": 1024, "stdout": "w6k=\n",
            "stderr": null, "compile_output": null, "message": null,
            "status": {"id": 4, "description": "Wrong Answer"},
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_failed_delivery_is_tried_again() {
    let backend = server(&Arc::new(tempfile::tempdir().unwrap())).await;
    // A redirect is no delivery, and is not followed.
    let mut receiver = Receiver::answering(vec![500, 302]).await;
    deliver(&backend);
    start(&backend, &receiver.url).await;

    for number in ["1", "2", "3"] {
        let (headers, _) = receiver.posts.recv().await.unwrap();
        assert_eq!(header(&headers, "cloude-delivery"), number);
    }
}

#[tokio::test]
async fn a_delivery_survives_a_crash() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let mut receiver = Receiver::answering(Vec::new()).await;
    let first = server(&state).await;
    let id = start(&first, &receiver.url).await;
    first.finished(&id).await;

    // For the next server, one that was not stopped looks like one that was killed.
    let next = server(&state).await;
    deliver(&next);
    let (headers, _) = receiver.posts.recv().await.unwrap();

    assert_eq!(header(&headers, "cloude-execution"), id);
}

#[tokio::test]
async fn a_delivery_is_marked_and_not_repeated() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let mut receiver = Receiver::answering(Vec::new()).await;
    deliver(&backend);
    let id = start(&backend, &receiver.url).await;
    receiver.posts.recv().await.unwrap();
    let database = rusqlite::Connection::open(state.path().join("jobs.db")).unwrap();
    let sql = "SELECT due_ms, delivered_ms FROM callbacks WHERE job = ?1";
    let row = || -> (Option<i64>, Option<i64>) {
        let row = database.query_row(sql, [&id], |row| Ok((row.get(0)?, row.get(1)?)));
        row.unwrap()
    };
    while row().1.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(row().0, None);

    let other = start(&backend, &receiver.url).await;
    let (headers, _) = receiver.posts.recv().await.unwrap();
    assert_eq!(header(&headers, "cloude-execution"), other);
}

#[tokio::test]
async fn an_address_that_vms_cannot_reach_is_refused() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), folder, |config| {
        config.callbacks.secret = "key".parse().unwrap();
    })
    .await;
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/",
        "ftp://a.example/",
    ] {
        let answer = post(&backend, url).await;
        assert_eq!(
            (answer.status, &answer.json()["field"]),
            (400, &Value::from("callback_url"))
        );
    }
}

#[tokio::test]
async fn without_a_secret_callbacks_are_refused() {
    let backend = Backend::start().await;

    let answer = post(&backend, "https://a.example/").await;

    assert_eq!(answer.status, 400);
    assert!(answer.failure().contains("callbacks.secret"));
}
