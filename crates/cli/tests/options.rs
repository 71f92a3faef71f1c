//! The options of `run` that become parts of the request.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use cloude_protocol::api::{CompileLimits, ExecutionRequest, Limits, OnOutputLimit};
use common::{FakeBackend, exited};

/// The request of a command that must succeed.
fn request(arguments: &[&str]) -> ExecutionRequest {
    let backend = FakeBackend::ending(exited(0));
    backend.cloude().args(arguments).assert().success();
    backend.only_execution()
}

/// The message of a command that must be refused before anything is sent.
fn refusal(arguments: &[&str]) -> String {
    let backend = FakeBackend::ending(exited(0));
    let output = backend.cloude().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(backend.shared.executions.lock().unwrap().is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_limit_can_be_set_with_its_unit() {
    let mut arguments = vec!["run", "-l", "python", "-c", "x"];
    for limit in [
        "wall_time=5s",
        "cpu_time=1500ms",
        "memory=512M",
        "vcpus=2",
        "output=64K",
        "artifacts=1M",
        "disk=2G",
        "processes=7",
        "open_files=64",
        "file_size=1000",
        "stack=8M",
        "compile.wall_time=20s",
        "compile.cpu_time=1m",
        "compile.processes=8",
        "compile.open_files=65",
        "compile.file_size=3K",
        "compile.stack=4K",
    ] {
        arguments.extend(["--limit", limit]);
    }
    let expected = Limits {
        wall_time_ms: Some(5_000),
        cpu_time_ms: Some(1_500),
        memory_bytes: Some(512 << 20),
        vcpus: Some(2),
        output_bytes: Some(64 << 10),
        artifact_bytes: Some(1 << 20),
        disk_bytes: Some(2 << 30),
        processes: Some(7),
        open_files: Some(64),
        file_bytes: Some(1000),
        stack_bytes: Some(8 << 20),
        compile: CompileLimits {
            wall_time_ms: Some(20_000),
            cpu_time_ms: Some(60_000),
            processes: Some(8),
            open_files: Some(65),
            file_bytes: Some(3 << 10),
            stack_bytes: Some(4 << 10),
        },
    };
    assert_eq!(request(&arguments).limits, expected);
}

#[test]
fn wrong_limits_are_refused_with_the_way_out() {
    for (limits, part) in [
        (&["speed=1"][..], "there are wall_time, cpu_time, memory"),
        (
            &["compile.memory=1G"],
            "there are wall_time, cpu_time, processes",
        ),
        (&["memory"], "expected NAME=VALUE"),
        (&["disk=lots"], "expected a number"),
        (&["processes=1.5"], "expected a whole number"),
        (&["disk=1M", "disk=2M"], "disk is given twice"),
    ] {
        let mut arguments = vec!["run", "-l", "python", "-c", "x"];
        arguments.extend(limits.iter().flat_map(|limit| ["--limit", limit]));
        let error = refusal(&arguments);
        assert!(error.contains(part), "{limits:?}: {error}");
    }
    let both = [
        "run",
        "-l",
        "c",
        "-c",
        "x",
        "-t",
        "1s",
        "--limit",
        "wall_time=2s",
    ];
    assert!(refusal(&both).contains("wall_time is given twice"));
}

#[test]
fn a_version_comes_with_the_language_or_by_itself() {
    let version = |arguments: &[&str]| {
        let request = request(arguments);
        (request.language, request.version.unwrap_or_default())
    };
    let expected = ("python".to_owned(), "3.13".to_owned());
    assert_eq!(version(&["run", "-l", "python@3.13", "-c", "x"]), expected);
    assert_eq!(
        version(&[
            "run",
            "-l",
            "python",
            "--language-version",
            "3.13",
            "-c",
            "x"
        ]),
        expected
    );
    for spec in ["python@", "@3"] {
        let error = refusal(&["run", "-l", spec, "-c", "x"]);
        assert!(error.contains("--language python@3.13"), "{error}");
    }
}

#[test]
fn labels_artifacts_and_compiler_options_reach_the_backend() {
    let request = request(&[
        "run",
        "-l",
        "c",
        "-c",
        "x",
        "--label",
        "job=nightly",
        "--label",
        "n=1=2",
        "--artifact",
        "out/**",
        "-a",
        "*.csv",
        "--compile-option",
        "-O3",
        "--compile-option=-DX=1",
        "--on-output-limit",
        "kill",
    ]);
    let labels = [("job", "nightly"), ("n", "1=2")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(request.labels, labels.into());
    assert_eq!(request.artifacts, ["out/**", "*.csv"]);
    assert_eq!(request.compile_options, ["-O3", "-DX=1"]);
    assert_eq!(request.on_output_limit, OnOutputLimit::Kill);
    let error = refusal(&["run", "-l", "c", "-c", "x", "--label", "job"]);
    assert!(error.contains("is not NAME=VALUE"), "{error}");
}

#[test]
fn a_folder_with_an_entrypoint_needs_no_program() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    for (name, mode) in [("main.py", 0o644), ("lib/tool", 0o755)] {
        let path = folder.path().join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let spec = format!("{}:.", folder.path().display());
    let request = request(&["run", "--file", &spec, "--entrypoint", "main.py"]);
    assert_eq!(
        (request.language.as_str(), request.code.as_str()),
        ("python", "")
    );
    assert_eq!(request.entrypoint.as_deref(), Some("main.py"));
    let files = request.files.iter();
    let files: Vec<_> = files.map(|it| (it.path.as_str(), it.mode)).collect();
    assert_eq!(files, [("lib/tool", Some(0o755)), ("main.py", Some(0o644))]);
}

#[test]
fn detach_prints_the_id_and_asks_not_to_wait() {
    let backend = FakeBackend::ending(exited(3));
    let run = [
        "run",
        "-l",
        "python",
        "-c",
        "x",
        "--detach",
        "--callback",
        "https://example.org/done",
    ];
    let output = backend.cloude().args(run).output().unwrap();
    assert_eq!(output.stdout, b"job-1\n");
    assert_eq!(output.status.code(), Some(0));
    let request = backend.only_execution();
    assert_eq!(
        request.callback_url.as_deref(),
        Some("https://example.org/done")
    );
    let headers = backend.shared.headers.lock().unwrap();
    assert!(headers[0].0.contains_key("idempotency-key"));
    let error = refusal(&[
        "run",
        "-l",
        "c",
        "-c",
        "x",
        "--callback",
        "https://example.org",
    ]);
    assert!(error.contains("--detach"), "{error}");
}

#[test]
fn detach_as_json_is_the_backends_answer() {
    let backend = FakeBackend::ending(exited(3));
    let run = ["run", "-l", "python", "-c", "x", "-d", "--json"];
    let output = backend.cloude().args(run).output().unwrap();
    let summary: cloude_protocol::api::ExecutionSummary =
        serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((summary.id.as_str(), summary.created_ms), ("job-1", 7));
}

#[test]
fn a_key_with_other_characters_is_refused() {
    for key in ["", "a b", "é"] {
        let error = refusal(&[
            "run",
            "-l",
            "c",
            "-c",
            "x",
            "--detach",
            "--idempotency-key",
            key,
        ]);
        assert!(error.contains("visible ASCII"), "{error}");
    }
}
