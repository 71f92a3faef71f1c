//! Quotas, and memory that a request's output may take, over HTTP.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::Config;
use serde_json::{Value, json};
use support::{Backend, capacity};

async fn backend(change: impl FnOnce(&mut Config)) -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(4, 16), state, change).await
}

fn program(code: &str) -> Value {
    json!({"language": "python", "code": code})
}

#[tokio::test]
async fn too_many_requests_per_second_get_429_with_the_quota() {
    let backend = backend(|config| config.quota.requests_per_s = 1).await;
    let mut answer = backend.post("/v1/executions", program("print 1")).await;
    assert_eq!(answer.status, 200);
    while answer.status == 200 {
        answer = backend.post("/v1/executions", program("print 1")).await;
    }
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    let error = answer.failure();
    assert!(error.contains("`quota.requests_per_s` is 1"), "{error}");
    let metrics = backend.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let row = "cloude_rejected_total{reason=\"quota.requests_per_s\"} 1";
    assert!(metrics.contains(row), "{metrics}");
    assert_eq!(backend.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_vm_over_the_memory_quota_is_refused() {
    let backend = backend(|config| config.quota.memory_mib = 1024).await;
    let mut request = program("print 1");
    request["limits"] = json!({"memory_bytes": 2048_u64 << 20});
    let answer = backend.post("/v1/executions", request).await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    let error = answer.failure();
    assert!(
        error.contains("1056964608"),
        "without the worker's 16 MiB: {error}"
    );
}

#[tokio::test]
async fn the_concurrency_quota_makes_executions_wait() {
    let backend = backend(|config| config.quota.concurrent = 1).await;
    let first = backend.post("/run", program("hold")).await.json();
    backend.alive(1).await;
    let second = backend.post("/run", program("hold")).await.json();
    assert_eq!(backend.service.load().waiting, 1);
    backend.world.go_on.notify_one();
    backend.finished(first["id"].as_str().unwrap()).await;
    backend.alive(1).await;
    backend.world.go_on.notify_one();
    backend.finished(second["id"].as_str().unwrap()).await;
}

#[tokio::test]
async fn output_limits_count_as_memory_of_the_vm() {
    let backend = backend(|_| {}).await;
    let mut request = program("hold");
    request["limits"] = json!({"memory_bytes": 512 << 20, "output_bytes": 64 << 20});
    let id = backend.post("/run", program("hold")).await.json()["id"].clone();
    backend.alive(1).await;
    let plain = backend.service.load().memory_mib;
    let large = backend.post("/v1/executions", request);
    let during = async {
        backend.alive(2).await;
        let both = backend.service.load().memory_mib;
        assert_eq!(both - plain, 512 + 16 + 2 * 64 - 4);
        backend.world.go_on.notify_waiters();
    };
    let (answer, ()) = futures_util::future::join(large, during).await;
    assert_eq!(answer.status, 200);
    backend.finished(id.as_str().unwrap()).await;
}
