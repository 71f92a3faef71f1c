//! Arguments, variables, code and file name of a request: the request to the agent, and refusals.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloude_backend::config::Limits;
use cloude_protocol::agent::{
    ExecuteRequest, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS_BYTES, ProcessLimits,
};
use cloude_protocol::api::Problem;
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
    answer.failure()
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

#[tokio::test]
async fn each_limit_reaches_the_stage_that_it_is_of() {
    let asked = asked(json!({
        "language": "c", "code": "print x", "compile_options": ["-lpthread"],
        "on_output_limit": "kill", "artifacts": ["out/**"],
        "limits": {
            "cpu_time_ms": 11, "processes": 12, "open_files": 13, "file_bytes": 14, "stack_bytes": 15,
            "disk_bytes": 16, "artifact_bytes": 17,
            "compile": {"cpu_time_ms": 21, "processes": 22, "open_files": 23, "file_bytes": 24, "stack_bytes": 25}
        }
    }))
    .await;

    let limits = |first| ProcessLimits {
        cpu_time_ms: Some(first),
        processes: Some(first as u32 + 1),
        open_files: Some(first + 2),
        file_bytes: Some(first + 3),
        stack_bytes: Some(first + 4),
    };
    let compile = asked.compile.unwrap();
    assert_eq!((asked.run.limits, compile.limits), (limits(11), limits(21)));
    assert!(asked.run.kill_at_output_limit && compile.kill_at_output_limit);
    assert_eq!(compile.argv.last().unwrap(), "-lpthread");
    assert_eq!(asked.disk_bytes, Some(16));
    let artifacts = asked.artifacts.unwrap();
    assert_eq!(
        (artifacts.patterns, artifacts.max_bytes, artifacts.max_files),
        (vec!["out/**".to_owned()], 17, 1000)
    );
}

#[tokio::test]
async fn limits_that_a_request_omits_are_those_of_the_server() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), folder, |config| {
        config.limits.cpu_time_ms = 700;
        config.limits.max_cpu_time_ms = 900;
    })
    .await;
    let plain = with("args", json!([]));
    assert_eq!(backend.post("/v1/executions", plain).await.status, 200);

    let asked = backend.world.asked.lock().unwrap().take().unwrap();

    assert_eq!(asked.run.limits.cpu_time_ms, Some(700));
    assert_eq!(asked.run.limits.processes, None, "the guest's own");
    let over = with("limits", json!({"cpu_time_ms": 901}));
    let answer = backend.post("/v1/executions", over).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn compile_options_stand_before_a_program_at_the_end() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), folder, |_| {}).await;
    let request =
        json!({"language": "rust", "code": "print x", "compile_options": ["-C", "debuginfo=2"]});
    backend.world.built.cancel();
    assert_eq!(backend.post("/v1/executions", request).await.status, 200);

    let asked = backend.world.asked.lock().unwrap().take().unwrap();

    let argv = asked.compile.unwrap().argv;
    assert!(
        argv.ends_with(&["-C".into(), "debuginfo=2".into(), "main.rs".into()]),
        "{argv:?}"
    );
}

#[tokio::test]
async fn compile_options_need_a_compiler() {
    let error = refusal(with("compile_options", json!(["-O3"]))).await;

    assert!(error.contains("`compile_options`") && error.contains("`python`"));
}

#[tokio::test]
async fn the_entrypoint_is_the_program() {
    let code = "public class Tool { public static void main(String[] a) {} }";
    let request = json!({
        "language": "java", "entrypoint": "src/Tool.java",
        "files": [{"path": "src/Tool.java", "content": code}]
    });

    let asked = asked(request).await;

    assert_eq!(asked.compile.unwrap().argv.last().unwrap(), "src/Tool.java");
    assert_eq!(asked.run.argv.last().unwrap(), "Tool");
    assert_eq!(asked.files.len(), 1);
}

#[tokio::test]
async fn an_entrypoint_that_is_no_file_is_refused() {
    let missing = json!({"language": "python", "entrypoint": "a.py"});
    assert!(refusal(missing).await.contains("`entrypoint` is `a.py`"));

    let both = with("entrypoint", json!("a.py"));
    assert!(refusal(both).await.contains("send one of them"));
}

#[tokio::test]
async fn a_version_that_the_server_lacks_is_refused() {
    // The fake images have 1.2.3.
    for version in ["1", "1.2", "1.2.3", "1.2.x", "*"] {
        asked(with("version", json!(version))).await;
    }
    for version in ["2", "1.2.30", "1.20", ""] {
        let error = refusal(with("version", json!(version))).await;
        assert!(error.contains("this server has Python 1.2.3"), "{error}");
    }
}

#[tokio::test]
async fn labels_and_patterns_are_checked() {
    for (field, value, part) in [
        ("labels", json!({"a b": "x"}), "invalid label `a b`"),
        ("labels", json!({"a": "x\n"}), "invalid label `a`"),
        ("artifacts", json!(["/etc/*"]), "relative"),
        ("artifacts", json!(["../*"]), "`..`"),
    ] {
        let error = refusal(with(field, value)).await;
        assert!(error.contains(part), "{field}: {error}");
    }
}

#[tokio::test]
async fn a_problem_document_names_the_field() {
    let backend = backend().await;
    for (field, value, named) in [
        ("limits", json!({"processes": 1 << 20}), "limits.processes"),
        (
            "limits",
            json!({"compile": {"wall_time_ms": "x"}}),
            "limits.compile.wall_time_ms",
        ),
        ("limits", json!({"wall_tim": 1}), "limits.wall_tim"),
        ("sdtin", json!(""), "sdtin"),
        (
            "files",
            json!([{"path": "a", "content": ""}, {"path": "/b", "content": ""}]),
            "files[1].path",
        ),
        (
            "files",
            json!([{"path": "a", "content": 3}]),
            "files[0].content",
        ),
        ("env", json!({"A=B": ""}), "env.A=B"),
    ] {
        let answer = backend.post("/v1/executions", with(field, value)).await;

        let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(problem.field.as_deref(), Some(named), "{problem:?}");
        assert_eq!((answer.status, problem.status), (400, 400));
        assert_eq!(problem.kind, "/problems/invalid-field");
    }
}

#[tokio::test]
async fn the_original_endpoints_keep_their_errors() {
    let backend = backend().await;
    let body = json!({"language": "cobol", "code": "x"});

    let answer = backend.post("/run", body).await;

    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.json()["error"].as_str().unwrap().contains("cobol"));
    assert_eq!(answer.json().as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn an_unknown_path_below_v1_is_a_problem() {
    let backend = backend().await;

    let answer = backend.get("/v1/nothing").await;

    let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, problem.status), (404, 404));
    assert_eq!(
        (problem.kind.as_str(), problem.title.as_str()),
        ("about:blank", "Not Found")
    );
}
