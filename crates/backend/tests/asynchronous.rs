//! Executions that outlive their request, requests that are sent again, and the list of executions.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloude_protocol::api::{Batch, Execution, ExecutionList, ExecutionSummary, Readiness, Status};
use cloude_protocol::keys::Scope;
use serde_json::{Value, json};
use support::{Answer, Backend, capacity};

const JSON: (&str, &str) = ("content-type", "application/json");
const ASYNC: (&str, &str) = ("prefer", "respond-async");

fn python(code: &str) -> Value {
    json!({"language": "python", "code": code})
}

async fn server(state: &Arc<tempfile::TempDir>) -> Backend {
    Backend::with(capacity(4, 64), Arc::clone(state), |_| {}).await
}

async fn post(backend: &Backend, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[JSON], headers].concat();
    backend
        .send("POST", "/v1/executions", &headers, body.to_string())
        .await
}

/// The place of a new execution whose client does not wait for it.
async fn place(backend: &Backend, body: &Value) -> String {
    let answer = post(backend, &[ASYNC], body).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.headers["location"].to_str().unwrap().to_owned()
}

async fn result(backend: &Backend, place: &str) -> Execution {
    let answer = backend.get(&format!("{place}?wait=60s")).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn respond_async_answers_202_with_the_place() {
    let backend = Backend::start().await;

    let answer = post(&backend, &[ASYNC], &python("hold")).await;

    assert_eq!(answer.status, 202);
    assert_eq!(answer.headers["preference-applied"], "respond-async");
    let summary: ExecutionSummary = serde_json::from_slice(&answer.body).unwrap();
    let place = answer.headers["location"].to_str().unwrap();
    assert_eq!(place, format!("/v1/executions/{}", summary.id));
    backend.alive(1).await;
    let running = backend.get(place).await;
    assert_eq!(running.status, 202);
    assert_eq!(running.json()["status"], "running");
    backend.world.go_on.notify_one();
    let execution = result(&backend, place).await;
    assert_eq!(execution.stdout.to_text(), "held\n");
    assert!(execution.created_ms > 0);
}

#[tokio::test]
async fn every_field_of_a_request_survives_a_crash() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let first = server(&state).await;
    let request = json!({
        "language": "c++", "code": "hold", "stdin": "in", "args": ["a b"], "env": {"X": "1"},
        "files": [{"path": "d/f", "content": {"base64": "/w=="}, "mode": 0o600}], "network": true,
        "compile_options": ["-g"], "artifacts": ["out/*"], "labels": {"team": "x"}, "user": "root",
        "on_output_limit": "kill",
        "limits": {"wall_time_ms": 50_000, "memory_bytes": 700 << 20, "compile": {"processes": 9}}
    });
    let place = place(&first, &request).await;
    first.alive(1).await;
    let asked = first.world.asked.lock().unwrap().take().unwrap();

    // For the next server, one that was not stopped looks like one that was killed.
    let next = server(&state).await;
    assert_eq!(next.service.recover().await.unwrap(), 1);
    next.alive(1).await;

    let again = next.world.asked.lock().unwrap().take().unwrap();
    assert_eq!(again, asked);
    next.world.go_on.notify_one();
    assert_eq!(result(&next, &place).await.labels["team"], "x");
}

#[tokio::test]
async fn a_wait_ends_with_the_result_or_with_202() {
    let backend = Backend::start().await;
    let place = place(&backend, &python("hold")).await;
    backend.alive(1).await;

    let early = backend.get(&format!("{place}?wait=1ms")).await;
    assert_eq!(early.status, 202);
    let path = format!("{place}?wait=60");
    let (late, ()) = tokio::join!(backend.get(&path), async {
        backend.world.go_on.notify_one();
    });
    assert_eq!(
        (late.status, &late.json()["stdout"]),
        (200, &json!("held\n"))
    );
    for wait in ["61s", "x", "-1"] {
        let answer = backend.get(&format!("{place}?wait={wait}")).await;
        assert_eq!(answer.status, 400, "{wait}");
    }
}

#[tokio::test]
async fn a_callback_needs_a_durable_execution() {
    let backend = Backend::start().await;
    let mut request = python("print x");
    request["callback_url"] = json!("https://example.com/");
    let answer = post(&backend, &[], &request).await;
    let field = &answer.json()["field"];
    assert_eq!((answer.status, field), (400, &json!("callback_url")));
}

#[tokio::test]
async fn a_request_sent_again_has_the_same_execution() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let key = ("idempotency-key", "order-17");

    let first = post(&backend, &[key], &python("print x")).await;
    // White space does not matter, the values do.
    let again = post(&backend, &[key], &python("print x")).await;
    let late = post(&backend, &[key, ASYNC], &python("print x")).await;
    let other = post(&backend, &[key], &python("print y")).await;

    assert_eq!((first.status, again.status, late.status), (200, 200, 202));
    assert_eq!(first.json(), again.json());
    assert_eq!(first.json()["id"], late.json()["id"]);
    assert_eq!(other.status, 422, "{:?}", other.body);
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1);
    let next = server(&state).await;
    let after = post(&next, &[key], &python("print x")).await;
    assert_eq!(after.json(), first.json(), "after a restart");
}

#[tokio::test]
async fn requests_with_one_key_at_once_start_one_execution() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let key = [("idempotency-key", "k")];
    let program = python("print x");

    let requests = (0..20).map(|_| post(&backend, &key, &program));
    let answers = futures_util::future::join_all(requests).await;

    let ids: BTreeSet<_> = answers
        .iter()
        .map(|it| it.json()["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_execution_of_its_key() {
    let backend = Backend::start().await;
    let key = ("idempotency-key", "k");
    let program = python("hold");
    let (mut sender, connection) = backend.connect().await;
    let request = hyper::Request::post("/v1/executions")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header(key.0, key.1)
        .body(http_body_util::Full::new(program.to_string().into()))
        .unwrap();
    let sent = tokio::spawn(async move { sender.send_request(request).await });
    backend.alive(1).await;
    connection.abort();
    sent.abort();

    backend.world.go_on.notify_one();
    let again = post(&backend, &[key], &program).await;

    assert_eq!(again.json()["stdout"], "held\n");
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_malformed_key_is_refused() {
    let backend = Backend::start().await;
    for key in ["", "a b", &"x".repeat(256)] {
        let answer = post(&backend, &[("idempotency-key", key)], &python("print x")).await;
        assert_eq!(answer.status, 400, "{key}");
    }
}

async fn list(backend: &Backend, query: &str) -> ExecutionList {
    let answer = backend.get(&format!("/v1/executions{query}")).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn the_list_has_each_execution_once_newest_first() {
    let backend = Backend::start().await;
    let mut ids = BTreeSet::new();
    for number in 0..7 {
        let mut program = python("print x");
        program["labels"] = json!({"n": number.to_string()});
        let headers: &[_] = if number % 2 == 0 { &[ASYNC] } else { &[] };
        let answer = post(&backend, headers, &program).await;
        ids.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    // One that waits and is in no row.
    let (mut sender, _connection) = backend.connect().await;
    let body = python("hold").to_string();
    let request = hyper::Request::post("/v1/executions")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(body.into()))
        .unwrap();
    let _waiting = tokio::spawn(async move { sender.send_request(request).await });
    backend.alive(1).await;

    let (mut found, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = list(&backend, &query).await;
        assert!(page.executions.len() <= 3);
        found.extend(page.executions);
        match page.next_cursor {
            Some(cursor) => query = format!("?limit=3&cursor={cursor}"),
            None => break,
        }
    }

    assert_eq!(found[0].status, Status::Running);
    assert!(found.is_sorted_by_key(|it| std::cmp::Reverse((it.created_ms, it.id.clone()))));
    let listed: BTreeSet<_> = found.iter().skip(1).map(|it| it.id.clone()).collect();
    assert_eq!((found.len(), listed), (8, ids));
    let three = list(&backend, "?label=n:3&status=done&language=py").await;
    assert_eq!(three.executions.len(), 1);
    assert_eq!(three.executions[0].labels["n"], "3");
    assert!(list(&backend, "?language=bash").await.executions.is_empty());
    for query in [
        "?status=x",
        "?limit=0",
        "?limit=201",
        "?cursor=x",
        "?lable=a:b",
    ] {
        let answer = backend.get(&format!("/v1/executions{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_key_lists_its_own_executions() {
    let backend = Backend::start().await;
    let (one, _) = backend.key(&[Scope::Run, Scope::Read]).await;
    let (other, _) = backend.key(&[Scope::Run, Scope::Read]).await;
    let body = python("print x").to_string();
    backend.send_as(&one, "POST", "/v1/executions", &body).await;

    let own = backend.send_as(&one, "GET", "/v1/executions", "").await;
    let foreign = backend.send_as(&other, "GET", "/v1/executions", "").await;

    let count = |answer: &Answer| answer.json()["executions"].as_array().unwrap().len();
    assert_eq!((count(&own), count(&foreign)), (1, 0));
}

#[tokio::test]
async fn readiness_names_each_part() {
    let backend = Backend::start().await;

    let answer = backend.get("/v1/ready").await;

    let readiness: Readiness = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (answer.status, readiness.ready),
        (200, true),
        "{readiness:?}"
    );
    let part = |name: &str| {
        let mut parts = readiness.parts.iter();
        parts.find(|part| part.name == name).unwrap()
    };
    assert!(part("kvm").ready && part("store").ready && part("disk").ready);
    assert!(part("image python").ready && !part("image go").ready);
    assert!(!part("template python").ready);
    backend.service.drain();
    let draining = backend.get("/v1/ready").await;
    assert_eq!(draining.status, 503);
    assert_eq!(backend.get("/v1/health").await.status, 503);
}

#[tokio::test]
async fn a_batch_runs_each_input_and_keeps_their_order() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = server(&state).await;
    let inputs: Vec<_> = (0..30)
        .map(|number| json!({"args": [number.to_string()], "labels": {"n": number.to_string()}}))
        .collect();
    let body = json!({"request": python("print x"), "inputs": inputs});

    let answer = backend.post("/v1/batches", body).await;

    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let place = answer.headers["location"].to_str().unwrap();
    let batch: Batch = serde_json::from_slice(&answer.body).unwrap();
    for summary in &batch.executions {
        let execution = result(&backend, &format!("/v1/executions/{}", summary.id)).await;
        assert_eq!(execution.stdout.to_text(), "x");
    }
    let next = server(&state).await;
    for server in [&backend, &next] {
        let batch: Batch = serde_json::from_slice(&server.get(place).await.body).unwrap();
        let order = batch.executions.iter().map(|it| it.labels["n"].clone());
        assert!(batch.ended && order.eq((0..30).map(|number| number.to_string())));
    }
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 30);
    assert_eq!(backend.get("/v1/batches/x").await.status, 404);
}

/// The results of a batch of a compiled language, in the order of its inputs.
async fn compiled_batch(backend: &Backend, code: &str, inputs: Value) -> Vec<Execution> {
    let request = json!({"language": "c", "code": code});
    let body = json!({"request": request, "inputs": inputs});
    let answer = backend.post("/v1/batches", body).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let batch: Batch = serde_json::from_slice(&answer.body).unwrap();
    let mut results = Vec::new();
    for summary in &batch.executions {
        results.push(result(backend, &format!("/v1/executions/{}", summary.id)).await);
    }
    results
}

#[tokio::test]
async fn a_batch_is_compiled_once() {
    let backend = Backend::start().await;

    let results = compiled_batch(&backend, "build hi", json!([{}, {}, {}])).await;

    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1 + 3);
    let mut compiled = 0;
    for result in results {
        let compile = result.compile.unwrap();
        assert_eq!(compile.stderr.to_text(), "main.c:1: warning\n");
        assert_eq!(result.stdout.to_text(), "hi");
        compiled += u32::from(!compile.shared);
    }
    assert_eq!(compiled, 1);
    let usage = backend.get("/v1/usage").await.json();
    assert_eq!(usage[0]["cpu_ms"], (900 + 3 * 900) / 1000, "{usage}");
}

#[tokio::test]
async fn a_batch_that_does_not_compile_takes_one_vm() {
    let backend = Backend::start().await;

    for result in compiled_batch(&backend, "uncompilable", json!([{}, {}])).await {
        let compile = result.compile.unwrap();
        assert_eq!(compile.stderr.to_text(), "main.c:1: error\n");
        assert_eq!((result.exit_code, result.run), (Some(1), None));
    }

    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_input_with_variables_is_compiled_with_them() {
    let backend = Backend::start().await;
    let inputs = json!([{"env": {"A": "1"}}, {"env": {"A": "2"}}]);

    for result in compiled_batch(&backend, "build hi", inputs).await {
        assert_eq!(result.stdout.to_text(), "hi");
        assert!(!result.compile.unwrap().shared);
    }

    // The program that was compiled for all, and then one VM for each.
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1 + 2);
}

#[tokio::test]
async fn a_batch_is_accepted_as_a_whole_or_not_at_all() {
    let backend = Backend::start().await;
    let request = python("hold");
    let many = vec![json!({}); 17];
    for (inputs, status) in [
        (many, 429),
        (vec![json!({}), json!({"args": ["\0"]})], 400),
        (Vec::new(), 400),
    ] {
        let body = json!({"request": request, "inputs": inputs});
        assert_eq!(backend.post("/v1/batches", body).await.status, status);
    }

    assert!(list(&backend, "").await.executions.is_empty());
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 0);
    assert_eq!(backend.service.load().waiting, 0, "no slot is left taken");
}
