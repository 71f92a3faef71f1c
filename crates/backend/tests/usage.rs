//! `GET /v1/usage`.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use cloude_protocol::keys::Scope;
use serde_json::{Value, json};
use support::Backend;

const KEYS: &[Scope] = &[Scope::Run, Scope::Read];

async fn run(backend: &Backend, key: &str, code: &str) {
    let body = json!({"language": "python", "code": code}).to_string();
    let answer = backend.send_as(key, "POST", "/v1/executions", &body).await;
    assert_eq!(answer.status, 200);
    backend.alive(0).await;
}

/// Waits for the writes: a result is stored after its client got it.
async fn written(backend: &Backend) {
    backend.service.drain();
    backend.service.finish(std::time::Duration::MAX).await;
}

/// The usage that the key sees, without the durations.
async fn seen(backend: &Backend, key: &str) -> Vec<(String, u64)> {
    let answer = backend.send_as(key, "GET", "/v1/usage", "").await.json();
    let rows = answer.as_array().unwrap().iter();
    let row = |row: &Value| {
        let key = row["key"].as_str().unwrap().to_owned();
        (key, row["executions"].as_u64().unwrap())
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn a_key_sees_its_own_usage_and_admin_that_of_all() {
    let backend = Backend::start().await;
    let (first, first_id) = backend.key(KEYS).await;
    let (second, second_id) = backend.key(KEYS).await;
    let (admin, _) = backend.key(&[Scope::Admin]).await;
    run(&backend, &first, "print a").await;
    run(&backend, &first, "exit 3").await;
    run(&backend, &second, "print b").await;
    written(&backend).await;

    assert_eq!(seen(&backend, &first).await, [(first_id.clone(), 2)]);
    assert_eq!(seen(&backend, &second).await, [(second_id.clone(), 1)]);
    let mut all = vec![(first_id, 2), (second_id, 1)];
    all.sort();
    assert_eq!(seen(&backend, &admin).await, all);
}

#[tokio::test]
async fn usage_has_the_times_that_were_measured() {
    let backend = Backend::start().await;
    let (key, _) = backend.key(KEYS).await;
    for _ in 0..4 {
        run(&backend, &key, "print a").await;
    }
    written(&backend).await;

    let answer = backend.send_as(&key, "GET", "/v1/usage", "").await.json();

    // The fake agent reports 900 microseconds of CPU time for each.
    assert_eq!(answer[0]["cpu_ms"], 3);
    assert!(answer[0]["vm_ms"].is_u64() && answer[0]["memory_mib_s"].is_u64());
}
