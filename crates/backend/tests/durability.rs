//! Executions after a crash or a shutdown of clouded, cancelled executions, panics and failing writes.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use cloude_backend::tenant::Tenant;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloude_backend::jobs::{Client, SubmitError};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{ExecutionRequest, Status};
use futures_util::future::join;
use serde_json::{Value, json};
use support::{Backend, capacity};

fn python(code: &str) -> ExecutionRequest {
    ExecutionRequest {
        language: "python".into(),
        code: code.into(),
        ..Default::default()
    }
}

fn state() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

/// A server with the state of an earlier one.
async fn server(state: &Arc<tempfile::TempDir>) -> Backend {
    Backend::with(capacity(1, 8), Arc::clone(state), |_| {}).await
}

async fn submit(backend: &Backend, code: &str, client: Client) -> String {
    let job = backend
        .service
        .submit(Tenant::local(), python(code), client)
        .await
        .unwrap();
    job.about.id.clone()
}

async fn stop(backend: &Backend) {
    backend.service.drain();
    backend.service.finish(Duration::ZERO).await;
}

#[tokio::test]
async fn the_next_process_runs_accepted_executions() {
    let state = state();
    let first = server(&state).await;
    let running = submit(&first, "hold", Client::Leaves).await;
    first.alive(1).await;
    let queued = submit(&first, "print b", Client::Leaves).await;
    stop(&first).await;
    assert_eq!(first.world.alive.load(Ordering::SeqCst), 0);

    let next = server(&state).await;
    assert_eq!(next.service.recover().await.unwrap(), 2);
    next.alive(1).await;
    next.world.go_on.notify_one();
    assert_eq!(next.finished(&running).await["stdout"], "held\n");
    assert_eq!(next.finished(&queued).await["stdout"], "b");
}

#[tokio::test]
async fn a_durable_result_is_stored_before_it_is_published() {
    let state = state();
    let backend = server(&state).await;
    let id = submit(&backend, "print x", Client::Leaves).await;
    backend.finished(&id).await;
    let database = rusqlite::Connection::open(state.path().join("jobs.db")).unwrap();
    let sql = "SELECT status FROM jobs WHERE id = ?1";
    let status: String = database.query_row(sql, [&id], |row| row.get(0)).unwrap();
    assert_eq!(status, "done");
}

#[tokio::test]
async fn an_execution_fails_after_three_crashes_of_clouded() {
    let state = state();
    // For the next server, one that was not stopped looks like one that was killed.
    let mut killed = vec![server(&state).await];
    let id = submit(&killed[0], "hold", Client::Leaves).await;
    killed[0].alive(1).await;
    for _ in 2..=3 {
        let next = server(&state).await;
        assert_eq!(next.service.recover().await.unwrap(), 1);
        next.alive(1).await;
        killed.push(next);
    }

    let last = server(&state).await;
    assert_eq!(last.service.recover().await.unwrap(), 0);
    let status = last.finished(&id).await;
    let reason = status["stderr"].as_str().unwrap();
    assert!(reason.contains("each of 3 attempts"), "{status}");
}

#[tokio::test]
async fn shutdowns_do_not_count_as_attempts() {
    let state = state();
    let first = server(&state).await;
    let id = submit(&first, "hold", Client::Leaves).await;
    first.alive(1).await;
    stop(&first).await;
    for _ in 0..4 {
        let next = server(&state).await;
        assert_eq!(next.service.recover().await.unwrap(), 1);
        next.alive(1).await;
        stop(&next).await;
    }

    let last = server(&state).await;
    last.service.recover().await.unwrap();
    last.alive(1).await;
    last.world.go_on.notify_one();
    assert_eq!(last.finished(&id).await["status"], "done");
}

#[tokio::test]
async fn a_shutdown_keeps_the_attempts_of_queued_executions() {
    let state = state();
    let killed = server(&state).await;
    let id = submit(&killed, "hold", Client::Leaves).await;
    killed.alive(1).await;
    let next = server(&state).await;
    submit(&next, "hold", Client::Waits).await;
    next.alive(1).await;
    assert_eq!(next.service.recover().await.unwrap(), 1);
    stop(&next).await;

    let database = rusqlite::Connection::open(state.path().join("jobs.db")).unwrap();
    let sql = "SELECT attempts FROM jobs WHERE id = ?1";
    let attempts: u32 = database.query_row(sql, [&id], |row| row.get(0)).unwrap();
    assert_eq!(attempts, 1, "it was only in the queue");
}

#[tokio::test]
async fn an_unreadable_row_fails_and_the_others_run() {
    let state = state();
    let first = server(&state).await;
    // It uses the only VM permit.
    submit(&first, "hold", Client::Leaves).await;
    first.alive(1).await;
    let newer = submit(&first, "print a", Client::Leaves).await;
    let good = submit(&first, "print b", Client::Leaves).await;
    stop(&first).await;
    let database = rusqlite::Connection::open(state.path().join("jobs.db")).unwrap();
    database
        .execute(
            "UPDATE jobs SET request = json_set(request, '$.newer_field', 1) WHERE id = ?1",
            [&newer],
        )
        .unwrap();

    let next = server(&state).await;
    assert_eq!(next.service.recover().await.unwrap(), 2);
    next.alive(1).await;
    next.world.go_on.notify_one();
    assert_eq!(next.finished(&good).await["stdout"], "b");
    let status = next.finished(&newer).await;
    assert_eq!(status["status"], "error");
    let reason = status["stderr"].as_str().unwrap();
    assert!(reason.contains("newer_field"), "{status}");
}

#[tokio::test]
async fn a_waiting_clients_request_is_never_written() {
    let state = state();
    let backend = server(&state).await;
    let mut request = python("hold");
    request.env.insert("TOKEN".into(), "s3cret".into());
    let job = backend
        .service
        .submit(Tenant::local(), request, Client::Waits)
        .await
        .unwrap();
    backend.alive(1).await;
    backend.world.go_on.notify_one();
    job.finished().await;
    stop(&backend).await;
    for entry in state.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        let found = content.windows(6).any(|window| window == b"s3cret");
        assert!(!found, "{}", path.display());
    }
}

#[tokio::test]
async fn a_request_during_the_shutdown_is_refused_or_finished() {
    let backend = server(&state()).await;
    let mut submitting = Box::pin(backend.service.submit(
        Tenant::local(),
        python("print a"),
        Client::Leaves,
    ));
    // It has passed the check of `is_draining` and waits for the store.
    let early = futures_util::poll!(&mut submitting);
    assert!(early.is_pending());
    backend.service.drain();
    let (job, ()) = join(submitting, backend.service.finish(Duration::from_secs(60))).await;
    let result = job.unwrap().result().unwrap();
    assert_eq!(result.stdout.to_text(), "a");

    let late = backend
        .service
        .submit(Tenant::local(), python("print b"), Client::Leaves);
    assert!(matches!(late.await, Err(SubmitError::Draining)));
}

#[tokio::test]
async fn a_panic_in_a_job_answers_its_client() {
    let backend = server(&state()).await;
    let body = json!({"language": "python", "code": "print x", "limits": {"vcpus": 6}});
    let answer = backend.post("/v1/executions", body).await.json();
    assert_eq!(answer["cause"], "infrastructure");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("injected panic"), "{error}");
    // Its VM permit is free again.
    let body = json!({"language": "python", "code": "print y"});
    let answer = backend.post("/v1/executions", body).await.json();
    assert_eq!(answer["stdout"], "y");
}

async fn delete(backend: &Backend, id: &str) -> (u16, Value) {
    let path = format!("/v1/executions/{id}");
    let answer = backend.send("DELETE", &path, &[], "").await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn delete_cancels_a_durable_execution() {
    let backend = server(&state()).await;
    let id = submit(&backend, "hold", Client::Leaves).await;
    backend.alive(1).await;
    let (status, body) = delete(&backend, &id).await;
    assert_eq!((status, &body["cause"]), (200, &json!("cancelled")));
    let error = body["error"].as_str().unwrap();
    assert!(error.contains("by a request to delete"), "{error}");
    assert_eq!(body["stdout"], "held\n", "the output so far is kept");
    backend.alive(0).await;
}

#[tokio::test]
async fn a_cancelled_execution_is_not_run_again() {
    let state = state();
    let backend = server(&state).await;
    let id = submit(&backend, "hold", Client::Leaves).await;
    backend.alive(1).await;
    delete(&backend, &id).await;
    stop(&backend).await;
    let next = server(&state).await;
    assert_eq!(next.service.recover().await.unwrap(), 0);
    assert_eq!(
        next.get(&format!("/v1/executions/{id}")).await.json()["cause"],
        "cancelled"
    );
}

#[tokio::test]
async fn delete_also_answers_the_client_that_waits() {
    let backend = server(&state()).await;
    let job = backend
        .service
        .submit(Tenant::local(), python("hold"), Client::Waits)
        .await
        .unwrap();
    backend.alive(1).await;
    let (status, _) = delete(&backend, &job.about.id).await;
    assert_eq!(status, 200);
    let execution = job.finished().await;
    assert_eq!(
        (execution.status, execution.cause),
        (Status::Error, Cause::Cancelled)
    );
}

#[tokio::test]
async fn delete_removes_an_execution_from_the_queue() {
    let backend = server(&state()).await;
    submit(&backend, "hold", Client::Leaves).await;
    backend.alive(1).await;
    let queued = submit(&backend, "print x", Client::Leaves).await;
    let (status, body) = delete(&backend, &queued).await;
    assert_eq!((status, &body["cause"]), (200, &json!("cancelled")));
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn delete_of_a_finished_execution_returns_its_result() {
    let backend = server(&state()).await;
    let id = submit(&backend, "exit 3", Client::Leaves).await;
    backend.finished(&id).await;
    let (status, body) = delete(&backend, &id).await;
    assert_eq!((status, &body["exit_code"]), (200, &json!(3)));
    let again = backend.get(&format!("/status/{id}")).await.json();
    assert_eq!(again["status"], "done");
}

#[tokio::test]
async fn delete_of_an_unknown_id_is_404() {
    let backend = server(&state()).await;
    let (status, body) = delete(&backend, "unknown").await;
    assert_eq!(status, 404);
    assert!(body["detail"].as_str().unwrap().contains("`unknown`"));
}

#[tokio::test]
async fn a_waiting_client_gets_the_reason_of_a_shutdown() {
    let backend = server(&state()).await;
    let job = backend
        .service
        .submit(Tenant::local(), python("hold"), Client::Waits)
        .await
        .unwrap();
    backend.alive(1).await;
    stop(&backend).await;
    let execution = job.result().unwrap();
    assert_eq!(execution.cause, Cause::Cancelled);
    let error = execution.error.as_deref().unwrap();
    assert!(error.contains("the server is shutting down"), "{error}");
}

#[tokio::test]
async fn requests_waiting_for_an_image_do_not_fill_the_queue() {
    let backend = Backend::with(capacity(1, 2), state(), |_| {}).await;
    let rust = || backend.post("/run", json!({"language": "rust", "code": "print r"}));
    let (first, second) = (rust().await, rust().await);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(rust().await.status, 429, "their number is limited, too");

    let body = json!({"language": "python", "code": "print p"});
    let other = backend.post("/v1/executions", body).await.json();
    assert_eq!(other["stdout"], "p");
    backend.world.built.cancel();
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(backend.finished(&id).await["stdout"], "r");
}

#[tokio::test]
async fn too_many_unwritten_results_refuse_new_executions() {
    let state = state();
    let backend = Backend::with(capacity(1, 8), Arc::clone(&state), |config| {
        config.store.cache_bytes = 1000;
    })
    .await;
    // Holds the write lock, as an operator's sqlite3 in a transaction does.
    let other = rusqlite::Connection::open(state.path().join("jobs.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let long = format!("print {}", "x".repeat(1001));
    let body = |code: &str| json!({"language": "python", "code": code});
    let first = backend.post("/v1/executions", body(&long)).await.json();
    while backend.get("/health").await.status == 200 {
        tokio::task::yield_now().await;
    }
    let health = backend.get("/health").await.json();
    assert_eq!(
        (&health["status"], &health["unwritten"]),
        (&json!("degraded"), &json!(1))
    );
    let path = format!("/v1/executions/{}", first["id"].as_str().unwrap());
    assert_eq!(backend.get(&path).await.json(), first, "it is in memory");
    let refused = backend.post("/v1/executions", body("print y")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));

    other.execute_batch("ROLLBACK").unwrap();
    backend.service.drain();
    backend.service.finish(Duration::from_secs(60)).await;
    let sql = "SELECT status FROM jobs";
    let status: String = other.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(status, "done");
}
