//! Arguments, variables, code and file name of a request: the request to the agent, and refusals.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloude_backend::config::Limits;
use cloude_protocol::agent::{ExecuteRequest, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS_BYTES};
use serde_json::{Value, json};
use support::{Backend, capacity};

fn with(field: &str, value: Value) -> Value {
    let mut request = json!({"language": "python", "code": "print x"});
    request[field] = value;
    request
}

/// A backend with the default limits.
async fn backend() -> Backend {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), folder, |config| {
        config.limits = Limits::default();
    })
    .await
}

/// The error of a request that gets 400 and no VM.
async fn refusal(request: Value) -> String {
    let backend = backend().await;
    let answer = backend.post("/v1/executions", request).await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 0);
    answer.json()["error"].as_str().unwrap().to_owned()
}

/// The request to the agent.
async fn asked(request: Value) -> ExecuteRequest {
    let backend = backend().await;
    let answer = backend.post("/v1/executions", request).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    backend.world.asked.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn an_argument_over_the_limit_of_linux_is_refused() {
    let longest = "x".repeat(MAX_ARGUMENT_BYTES);

    let error = refusal(with("args", json!(["a", longest]))).await;

    let expected = "`args[1]` has 131072 bytes, at most 131071 are allowed: put long texts into";
    assert!(error.starts_with(expected), "{error}");
}

#[tokio::test]
async fn a_variable_over_the_limit_of_linux_is_refused() {
    let longest = "x".repeat(MAX_ARGUMENT_BYTES - "NAME=".len());

    let error = refusal(with("env", json!({ "NAME": longest }))).await;

    let expected = "`env.NAME` has 131072 bytes, at most 131071 are allowed";
    assert!(error.starts_with(expected), "{error}");
}

#[tokio::test]
async fn an_error_does_not_repeat_a_long_name() {
    let error = refusal(with("env", json!({ "N".repeat(200_000): "" }))).await;

    assert!(error.len() < 300, "{} bytes", error.len());
}

#[tokio::test]
async fn arguments_too_large_together_are_refused() {
    let arguments = vec!["x".repeat(100_000); 31];

    let error = refusal(with("args", json!(arguments))).await;

    let expected = "`args` and `env` take 3100279 bytes together";
    assert!(error.starts_with(expected), "{error}");
}

#[tokio::test]
async fn many_small_arguments_count_with_their_pointers() {
    let arguments = vec![""; MAX_ARGUMENTS_BYTES / 9 + 1];

    let error = refusal(with("args", json!(arguments))).await;

    assert!(error.contains("at most 1048576"), "{error}");
}

#[tokio::test]
async fn the_longest_argument_and_variable_are_passed_on() {
    let mut request = with("args", json!(["x".repeat(MAX_ARGUMENT_BYTES - 1)]));
    request["env"] = json!({ "NAME": "x".repeat(MAX_ARGUMENT_BYTES - 1 - "NAME=".len()) });

    let asked = asked(request).await;

    assert_eq!(asked.run.argv.last().unwrap().len(), MAX_ARGUMENT_BYTES - 1);
    assert_eq!(asked.env["NAME"].len(), MAX_ARGUMENT_BYTES - 6);
}

#[tokio::test]
async fn a_nul_byte_in_a_variable_is_refused() {
    let error = refusal(with("env", json!({"NAME": "a\u{0}b"}))).await;

    assert!(
        error.contains("`NAME`") && error.contains("NUL byte"),
        "{error}"
    );
}

#[tokio::test]
async fn a_java_program_is_named_and_run_by_its_classes() {
    let code = "package a;\npublic class Shapes {}\nclass App { static void main(String[] a) {} }";

    let asked = asked(json!({"language": "java", "code": code, "args": ["one"]})).await;

    assert_eq!(asked.files[0].path, "Shapes.java");
    assert_eq!(asked.compile.unwrap().argv.last().unwrap(), "Shapes.java");
    assert!(asked.run.argv.ends_with(&["a.App".into(), "one".into()]));
}

#[tokio::test]
async fn no_other_file_has_the_path_of_a_java_program() {
    let error = refusal(json!({
        "language": "java",
        "code": "public class Shapes {}",
        "files": [{"path": "Shapes.java", "content": ""}]
    }))
    .await;

    assert!(
        error.contains("`Shapes.java` in `files` is the program's own path"),
        "{error}"
    );
}

#[tokio::test]
async fn the_program_has_the_extension_of_the_clients_file() {
    let request = json!({"language": "node", "code": "0", "file_name": "tools/x.mjs"});

    let asked = asked(request).await;

    assert_eq!(asked.files[0].path, "main.mjs");
    assert_eq!(asked.run.argv, ["node", "main.mjs"]);
}
