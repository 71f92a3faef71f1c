//! An execution belongs to the key that started it.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::Auth;
use cloude_protocol::keys::Scope;
use support::{Backend, capacity};

const KEYS: &[Scope] = &[Scope::Run, Scope::Read];

async fn strict(folder: &Arc<tempfile::TempDir>) -> Backend {
    Backend::with(capacity(2, 16), Arc::clone(folder), |config| {
        config.api.auth = Auth::Required;
    })
    .await
}

fn program(code: &str) -> String {
    format!(r#"{{"language":"python","code":"{code}"}}"#)
}

/// Starts an execution with `POST /run`, which returns before it ends.
async fn started(backend: &Backend, key: &str, code: &str) -> String {
    let answer = backend.send_as(key, "POST", "/run", &program(code)).await;
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Every way to an execution by its id answers as for an unknown id.
async fn is_hidden(backend: &Backend, key: &str, id: &str) {
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (method, folder) in [
        ("GET", "/v1/executions"),
        ("GET", "/status"),
        ("DELETE", "/v1/executions"),
    ] {
        for accept in ["application/json", "application/x-ndjson"] {
            let authorization = format!("Bearer {key}");
            let headers = [
                ("authorization", authorization.as_str()),
                ("accept", accept),
            ];
            let answer = backend
                .send(method, &format!("{folder}/{id}"), &headers, "")
                .await;
            assert_eq!(answer.status, 404, "{method} {folder}");
            let other = backend
                .send(method, &format!("{folder}/{unknown}"), &headers, "")
                .await;
            let text = String::from_utf8_lossy(&answer.body).replace(id, unknown);
            assert_eq!(text, String::from_utf8_lossy(&other.body));
        }
    }
}

#[tokio::test]
async fn a_running_execution_is_hidden_from_other_keys() {
    let backend = strict(&Arc::new(tempfile::tempdir().unwrap())).await;
    let (owner, _) = backend.key(KEYS).await;
    let (other, _) = backend.key(KEYS).await;
    let id = started(&backend, &owner, "hold").await;
    backend.alive(1).await;

    is_hidden(&backend, &other, &id).await;

    let path = format!("/v1/executions/{id}");
    let status = backend.send_as(&owner, "GET", &path, "").await.json();
    assert_eq!(
        status["status"], "running",
        "the other key has not cancelled it"
    );
    let cancelled = backend.send_as(&owner, "DELETE", &path, "").await.json();
    assert_eq!(cancelled["cause"], "cancelled");
}

#[tokio::test]
async fn a_stored_result_is_hidden_from_other_keys() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let first = strict(&folder).await;
    let (owner, _) = first.key(KEYS).await;
    let (other, _) = first.key(KEYS).await;
    let waited = first
        .send_as(&owner, "POST", "/v1/executions", &program("print x"))
        .await
        .json();
    let left = started(&first, &owner, "hold").await;
    first.alive(1).await;
    first.world.go_on.notify_one();
    first.alive(0).await;
    // Its own connection: the first server's memory is not asked.
    let next = strict(&folder).await;

    for id in [waited["id"].as_str().unwrap(), &left] {
        is_hidden(&next, &other, id).await;
        let path = format!("/v1/executions/{id}");
        let found = next.send_as(&owner, "GET", &path, "").await;
        assert_eq!(found.json()["status"], "done");
    }
}

#[tokio::test]
async fn a_restarted_execution_still_belongs_to_its_key() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let first = strict(&folder).await;
    let (owner, _) = first.key(KEYS).await;
    let (other, _) = first.key(KEYS).await;
    let id = started(&first, &owner, "hold").await;
    first.alive(1).await;
    let next = strict(&folder).await;
    assert_eq!(next.service.recover().await.unwrap(), 1);
    next.alive(1).await;

    is_hidden(&next, &other, &id).await;

    next.world.go_on.notify_one();
    next.alive(0).await;
    let path = format!("/v1/executions/{id}");
    let found = next.send_as(&owner, "GET", &path, "").await;
    assert_eq!(found.json()["stdout"], "held\n");
}

#[tokio::test]
async fn an_admin_key_reads_and_cancels_executions_of_all() {
    let backend = strict(&Arc::new(tempfile::tempdir().unwrap())).await;
    let (owner, _) = backend.key(KEYS).await;
    let (admin, _) = backend.key(&[Scope::Admin]).await;
    let id = started(&backend, &owner, "hold").await;
    backend.alive(1).await;
    let path = format!("/v1/executions/{id}");

    let read = backend.send_as(&admin, "GET", &path, "").await;
    let cancelled = backend.send_as(&admin, "DELETE", &path, "").await;

    assert_eq!(read.json()["status"], "running");
    assert_eq!(cancelled.json()["cause"], "cancelled");
}

#[tokio::test]
async fn without_keys_all_executions_have_one_owner() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), folder, |_| {}).await;
    let (key, _) = backend.key(KEYS).await;
    let local = backend
        .post(
            "/run",
            serde_json::json!({"language": "python", "code": "print x"}),
        )
        .await;
    let id = local.json()["id"].as_str().unwrap().to_owned();
    let keyed = started(&backend, &key, "print y").await;

    assert_eq!(backend.finished(&id).await["stdout"], "x");
    assert_eq!(backend.finished(&keyed).await["stdout"], "y");
    is_hidden(&backend, &key, &id).await;
}
