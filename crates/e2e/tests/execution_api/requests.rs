//! Requests to `/v1/executions`.

use cloude_e2e::backend::Backend;
use cloude_e2e::curl::{self, Answer};
use cloude_e2e::host;
use serde_json::Value;

/// Posts an execution and returns its result.
pub fn execute(backend: &Backend, request: &Value) -> Value {
    let answer = curl::post(&executions(backend), &request.to_string());
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body
}

pub fn executions(backend: &Backend) -> String {
    format!("{}/v1/executions", backend.url())
}

/// Posts a durable execution and returns its id.
pub fn start(backend: &Backend, request: &Value) -> String {
    let answer = curl::curl(&[
        "--header",
        "content-type: application/json",
        "--header",
        "prefer: respond-async",
        "--data-binary",
        &request.to_string(),
        &executions(backend),
    ]);
    let answer = answer.unwrap();
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

/// Waits for the result of an execution.
pub fn result(backend: &Backend, id: &str) -> Value {
    host::wait_for("the execution ends", || {
        let url = format!("{}/{id}?wait=30s", executions(backend));
        let answer: Answer = curl::get(&url)?;
        (answer.status == 200).then_some(answer.body)
    })
}
