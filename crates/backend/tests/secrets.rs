//! Secret variables: the program gets them, and neither the store nor an error has them.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::jobs::Client;
use cloude_backend::tenant::Tenant;
use cloude_protocol::Secret;
use cloude_protocol::api::ExecutionRequest;
use serde_json::json;
use support::{Backend, capacity};

const VALUE: &str = "s3cr3t-0123456789";

async fn backend(folder: &Arc<tempfile::TempDir>) -> Backend {
    Backend::with(capacity(2, 16), Arc::clone(folder), |_| {}).await
}

fn holding() -> ExecutionRequest {
    ExecutionRequest {
        language: "python".into(),
        code: "hold".into(),
        secrets: [("TOKEN".into(), Secret(VALUE.into()))].into(),
        ..ExecutionRequest::default()
    }
}

/// The files of the store that contain the secret's value.
fn files_with_the_value(folder: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let entries = folder.path().read_dir().unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let has = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(VALUE.len())
            .any(|window| window == VALUE.as_bytes())
    };
    files.filter(has).collect()
}

#[tokio::test]
async fn a_program_gets_its_secrets_as_variables() {
    let backend = backend(&Arc::new(tempfile::tempdir().unwrap())).await;
    let request = json!({
        "language": "python", "code": "print x", "env": {"A": "1"}, "secrets": {"TOKEN": VALUE}
    });

    let answer = backend.post("/v1/executions", request).await;

    assert_eq!(answer.status, 200);
    let asked = backend.world.asked.lock().unwrap().take().unwrap();
    assert_eq!(
        (asked.env["A"].as_str(), asked.env["TOKEN"].as_str()),
        ("1", VALUE)
    );
}

#[tokio::test]
async fn the_store_of_a_durable_execution_lacks_its_secrets() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = backend(&folder).await;

    let job = backend
        .service
        .submit(Tenant::local(), holding(), Client::Leaves)
        .await
        .unwrap();
    backend.alive(1).await;

    assert_eq!(
        files_with_the_value(&folder),
        Vec::<std::path::PathBuf>::new()
    );
    let asked = backend.world.asked.lock().unwrap().take();
    assert!(asked.is_none_or(|asked| asked.env["TOKEN"] == VALUE));
    backend.world.go_on.notify_one();
    job.finished().await;
    backend.service.drain();
    backend.service.finish(std::time::Duration::MAX).await;
    assert_eq!(
        files_with_the_value(&folder),
        Vec::<std::path::PathBuf>::new()
    );
}

#[tokio::test]
async fn after_a_crash_an_execution_with_secrets_says_why_it_ended() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let first = backend(&folder).await;
    let job = first
        .service
        .submit(Tenant::local(), holding(), Client::Leaves)
        .await
        .unwrap();
    first.alive(1).await;

    let next = backend(&folder).await;

    assert_eq!(next.service.recover().await.unwrap(), 0);
    let answer = next
        .get(&format!("/v1/executions/{}", job.about.id))
        .await
        .json();
    assert_eq!(answer["cause"], "infrastructure");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("did not store its `secrets`"), "{error}");
}

#[tokio::test]
async fn an_invalid_secret_is_refused_without_its_value() {
    let backend = backend(&Arc::new(tempfile::tempdir().unwrap())).await;
    for (env, secrets, part) in [
        (
            json!({}),
            json!({"A=B": VALUE}),
            "`secrets` has the invalid variable `A=B`",
        ),
        (
            json!({"A": "1"}),
            json!({"A": VALUE}),
            "`A` is in `env` and in `secrets`",
        ),
        (
            json!({}),
            json!({"A": VALUE.repeat(10_000)}),
            "`secrets.A` has",
        ),
    ] {
        let request = json!({"language": "python", "code": "x", "env": env, "secrets": secrets});
        let answer = backend.post("/v1/executions", request).await;
        assert_eq!(answer.status, 400);
        let error = answer.failure();
        assert!(error.contains(part) && !error.contains(VALUE), "{error}");
    }
}
