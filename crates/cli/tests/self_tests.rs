//! `cloude languages test`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::process::Output;

use axum::routing::get;
use axum::{Json, Router};
use cloude_protocol::Data;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, Installation, InstalledKernel};
use common::{FakeBackend, Script, ended, exited};

/// A folder of languages with `python`.
fn languages() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
        file = "main.py"
        image = { debian = { suite = "trixie", packages = ["python3"] } }
        run = { command = ["python3", "main.py"] }
        self_test = { code = "print(12)", stdin = "3\n", args = ["a b"], stdout = "12\n", exit_code = 4 }
    "#;
    std::fs::create_dir(dir.path().join("python")).unwrap();
    std::fs::write(dir.path().join("python/language.toml"), text).unwrap();
    dir
}

/// The result of a self-test that passes.
fn passed() -> Execution {
    let mut execution = exited(4);
    execution.stdout = Data(b"12\n".to_vec());
    execution.stderr = Data(b"this line is not part of it\n".to_vec());
    execution.timings.total_us = 1_250_000;
    execution
}

fn test(backend: &FakeBackend, dir: &Path, arguments: &[&str]) -> Output {
    let mut command = backend.cloude();
    command.args(["languages", "test"]).args(arguments);
    command.arg("--languages-dir").arg(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_self_test_that_passes_is_a_row_with_version_and_time() {
    let (backend, dir) = (FakeBackend::ending(passed()), languages());

    let output = test(&backend, dir.path(), &["python"]);

    assert_eq!(
        text(&output.stdout),
        "LANGUAGE  VERSION           TIME  RESULT\n\
         python    Python 3.13.5    1.25s  passed\n"
    );
    assert_eq!(output.status.code(), Some(0));
    let request = backend.only_execution();
    assert_eq!(
        (request.language.as_str(), request.code.as_str()),
        ("python", "print(12)")
    );
    assert_eq!(
        (request.stdin.0, request.args),
        (b"3\n".to_vec(), vec!["a b".to_owned()])
    );
}

#[test]
fn each_difference_fails_with_its_reason() {
    let changed = |change: fn(&mut Execution)| {
        let mut execution = passed();
        change(&mut execution);
        execution
    };
    for (execution, reason) in [
        (
            changed(|it| it.stdout = Data(b"13\n".to_vec())),
            r#"standard output is "13\n", not "12\n""#,
        ),
        (
            changed(|it| it.stderr = Data::default()),
            r#"standard error is "", not "this line"#,
        ),
        (
            changed(|it| it.exit_code = Some(0)),
            "the exit code is 0, not 4",
        ),
        (ended(Cause::Memory, None, None), "ended by memory"),
    ] {
        let (backend, dir) = (FakeBackend::ending(execution), languages());
        let output = test(&backend, dir.path(), &["python"]);
        let table = text(&output.stdout);
        assert!(table.contains(&format!("failed: {reason}")), "{table}");
        assert_eq!(output.status.code(), Some(1), "{reason}");
    }
}

#[test]
fn without_names_only_languages_with_an_image_are_tested() {
    let (backend, dir) = (FakeBackend::ending(passed()), languages());
    let output = test(&backend, dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(backend.only_execution().language, "python");
    let note = text(&output.stderr);
    assert!(note.contains("1 languages without an image"), "{note}");
}

#[test]
fn a_missing_self_test_fails_and_the_others_run() {
    let (backend, dir) = (FakeBackend::ending(passed()), languages());
    let output = test(&backend, dir.path(), &["--all", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results[0]["language"], "python");
    assert_eq!(results[0]["passed"], true);
    assert_eq!(results[0]["time_ms"], 1250);
    assert_eq!(results[1]["passed"], false);
    let reason = results[1]["reason"].as_str().unwrap();
    assert!(reason.contains("c/language.toml"), "{reason}");
}

#[test]
fn a_refused_execution_fails_with_the_backends_reason() {
    let error = r#"{"error":"the image cannot be built"}"#;
    let backend = FakeBackend::new(Script::Answer(400, None, error.to_owned()));
    let dir = languages();
    let output = test(&backend, dir.path(), &["PY"]);
    let table = text(&output.stdout);
    assert!(table.contains("the image cannot be built"), "{table}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_unknown_language_is_a_usage_error() {
    let (backend, dir) = (FakeBackend::ending(passed()), languages());
    let output = test(&backend, dir.path(), &["befunge"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(
        error.contains("\"befunge\"") && error.contains("python"),
        "{error}"
    );
}

#[test]
fn the_self_tests_are_those_of_the_backends_folder() {
    let dir = languages();
    let installation = Installation {
        version: "0.1.0".to_owned(),
        kernel: InstalledKernel {
            path: String::new(),
            present: true,
            modules: true,
            release: None,
        },
        images: String::new(),
        languages: dir.path().to_str().unwrap().to_owned(),
        image_max_age_days: 30,
        state_dir: String::new(),
        cache_dir: String::new(),
        worker: String::new(),
        agent: String::new(),
        isolation: Vec::new(),
    };
    let answer = Router::new().route(
        "/v1/installation",
        get(|| async move { Json(installation) }),
    );
    let script = Script::Events(vec![common::result(passed())]);
    let backend = FakeBackend::routed(script, answer);
    let output = backend
        .cloude()
        .args(["languages", "test", "python"])
        .env_remove("LANGUAGES_CONFIG_PATH")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}
