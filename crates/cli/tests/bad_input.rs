//! Wrong commands: each exits with 2, prints a message with the way out, and runs nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{FakeBackend, exited};

/// The arguments, and a part of the message.
const TABLE: &[(&[&str], &str)] = &[
    (&["run"], "<FILE>"),
    (&["run", "-c", "x"], "--language"),
    (&["run", "missing.py"], "cannot read missing.py"),
    (&["run", "."], "cannot read ."),
    (
        &["run", "Cargo.toml"],
        "file extension .toml: name one with --language (python, c)",
    ),
    (
        &["run", "tests/noextension"],
        "cannot read tests/noextension",
    ),
    (&["run", "-"], "name it with --language"),
    (
        &["run", "-", "-l", "python", "--stdin", "-"],
        "cannot be both",
    ),
    (
        &["run", "-c", "x", "-l", "python", "hello.py"],
        "cannot be used with",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--timeout", "soon"],
        "--timeout",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--timeout", "0"],
        "at least 1ms",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--memory", "lots"],
        "--memory",
    ),
    (&["run", "-c", "x", "-l", "python", "--vcpus", "9"], "1..=8"),
    (&["run", "-c", "x", "-l", "python", "--vcpus", "0"], "1..=8"),
    (
        &["run", "-c", "x", "-l", "python", "--env", "=x"],
        "NAME=VALUE",
    ),
    (
        &[
            "run",
            "-c",
            "x",
            "-l",
            "python",
            "--env",
            "NO_SUCH_VARIABLE_HERE",
        ],
        "no such variable in the environment",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--file", "missing"],
        "cannot read missing",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--file", "/"],
        "does not end in a file name",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--stdin", "missing"],
        "cannot read missing",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--backend", "ftp://x"],
        "use http, https or unix",
    ),
    (
        &["run", "-c", "x", "-l", "python", "--backend", "http://"],
        "invalid backend URL",
    ),
    (&["status"], "<ID>"),
    (&["status", "../run"], "invalid execution id"),
    (&["status", "job-2"], "no execution job-2"),
    (&["go", "--language", "python"], "--file"),
    (
        &["go", "--file", "missing.py", "--language", "python"],
        "cannot read missing.py",
    ),
    (
        &["go", "--file", "/dev/null", "--language", "python"],
        "code is empty",
    ),
    (&["completion", "cmd.exe"], "possible values"),
    (&["image"], "<COMMAND>"),
    (&["fly"], "unrecognized subcommand"),
    (&[], "Usage"),
];

#[test]
fn wrong_commands_are_refused_with_the_way_out() {
    let backend = FakeBackend::ending(exited(0));
    for (arguments, expected) in TABLE {
        let output = backend.cloude().args(*arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(
            message.contains(expected),
            "{arguments:?} printed {message:?} without {expected:?}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?} printed to stdout");
    }
    assert!(
        backend.shared.executions.lock().unwrap().is_empty(),
        "something ran"
    );
}

#[test]
fn a_program_that_is_not_utf8_is_refused_with_the_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.py");
    std::fs::write(&path, b"ok\xff").unwrap();
    let backend = FakeBackend::ending(exited(0));
    let output = backend.cloude().arg("run").arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not UTF-8 at byte 2"));
}
