//! All dialects on one server at the same time.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use serde_json::json;
use support::{Backend, capacity};

/// Clients of each dialect.
const CLIENTS: usize = 64;

async fn piston(backend: &Backend, text: &str) -> String {
    let code = format!("print {text}");
    let body = json!({"language": "python", "version": "*", "files": [{"content": code}]});
    let answer = backend.post("/api/v2/execute", body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()["run"]["stdout"].as_str().unwrap().to_owned()
}

async fn judge0(backend: &Backend, text: &str, waits: bool) -> String {
    let code = format!("print {text}");
    let body = json!({"language_id": 71, "source_code": code, "expected_output": text});
    let answer = backend
        .post(&format!("/submissions?wait={waits}"), body)
        .await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    backend.finished(&token).await;
    let answer = backend.get(&format!("/submissions/{token}")).await.json();
    assert_eq!(answer["status"]["id"], 3, "{answer}");
    answer["stdout"].as_str().unwrap().to_owned()
}

async fn original(backend: &Backend, text: &str) -> String {
    let body = json!({"language": "python", "code": format!("print {text}")});
    let answer = backend.post("/run", body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let status = backend.finished(&id).await;
    status["stdout"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn sixty_four_clients_of_each_dialect_get_their_own_answers() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(8, 4 * CLIENTS), state, |_| {}).await;
    let backend = &backend;
    let clients = (0..CLIENTS).map(|number| async move {
        let text = |dialect: &str| format!("{dialect} {number}");
        let (of_piston, of_judge0) = (text("piston"), text("judge0"));
        let (waiting, of_original) = (text("waiting"), text("original"));
        let answers = tokio::join!(
            piston(backend, &of_piston),
            judge0(backend, &of_judge0, false),
            judge0(backend, &waiting, true),
            original(backend, &of_original),
        );
        assert_eq!(answers, (of_piston, of_judge0, waiting, of_original));
    });
    join_all(clients).await;
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 4 * CLIENTS);
}
