//! Busy backends, and the errors of a request.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use common::{FakeBackend, Script, exited};

const RUN: [&str; 5] = ["run", "-l", "python", "-c", "x"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_busy_backend_is_asked_again_after_what_it_says() {
    for status in [429, 503] {
        let backend = FakeBackend::new(Script::Busy(status, "1", 2));
        let output = backend.cloude().args(RUN).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        let requests = backend.shared.headers.lock().unwrap();
        assert_eq!(requests.len(), 3);
        for pair in requests.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= Duration::from_secs(1));
        }
    }
}

#[test]
fn repeated_requests_have_one_idempotency_key() {
    let backend = FakeBackend::new(Script::Busy(429, "0", 2));
    let detach = || {
        let mut command = backend.cloude();
        command.args(RUN).arg("--detach");
        command
    };
    detach().assert().success();
    detach().assert().success();
    detach()
        .args(["--idempotency-key", "mine"])
        .assert()
        .success();
    let requests = backend.shared.headers.lock().unwrap();
    let keys = requests
        .iter()
        .map(|(headers, _)| &headers["idempotency-key"]);
    let keys: Vec<_> = keys.map(|key| key.to_str().unwrap()).collect();
    assert_eq!(keys.len(), 5);
    assert_eq!(keys[..2], keys[1..3], "one command has one key");
    assert_ne!(keys[2], keys[3], "two commands have two keys");
    assert_eq!(keys[4], "mine");
}

/// The backend would not cancel an execution with a key when its client goes.
#[test]
fn a_request_that_waits_has_no_idempotency_key() {
    let backend = FakeBackend::ending(exited(0));
    backend.cloude().args(RUN).assert().success();
    let requests = backend.shared.headers.lock().unwrap();
    assert!(!requests[0].0.contains_key("idempotency-key"));
}

#[test]
fn detach_repeats_a_request_that_got_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut keys = Vec::new();
        for is_answered in [false, true] {
            let (mut connection, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim().to_ascii_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(("idempotency-key", value)) => keys.push(value.to_owned()),
                    Some(_) => {}
                    None if line.trim().is_empty() => break,
                    None => {}
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            if is_answered {
                let body = r#"{"id":"job-1"}"#;
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 202 Accepted\r\ncontent-length: {length}\r\n\r\n{body}");
                connection.write_all(answer.as_bytes()).unwrap();
            }
        }
        keys
    });
    let url = format!("http://{address}");
    let mut command = common::cloude();
    command.args(["--backend", &url]).args(RUN).arg("--detach");
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "job-1\n", "{}", text(&output.stderr));
    let keys = server.join().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_wait_beyond_retry_for_is_an_error_at_once() {
    for option in [&[][..], &["--retry-for", "59m"], &["--retry-for", "0"]] {
        let backend = FakeBackend::new(Script::Busy(429, "3600", 1));
        let output = backend.cloude().args(RUN).args(option).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{option:?}");
        assert_eq!(
            text(&output.stderr),
            "cloude: the backend is busy: 64 executions are queued; try again in 3600 s\n"
        );
        assert_eq!(backend.shared.headers.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_problem_is_one_line_that_names_the_option() {
    let table = [
        (
            Some("limits.memory_bytes"),
            "cloude: --memory: at most 4 GiB\n",
        ),
        (
            Some("limits.disk_bytes"),
            "cloude: --limit disk: at most 4 GiB\n",
        ),
        (
            Some("limits.compile.stack_bytes"),
            "cloude: --limit compile.stack: at most 4 GiB\n",
        ),
        (Some("files[0].path"), "cloude: --file: at most 4 GiB\n"),
        (Some("frobs"), "cloude: frobs: at most 4 GiB\n"),
        (None, "cloude: at most 4 GiB\n"),
    ];
    for (field, expected) in table {
        let body = serde_json::json!({
            "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "at most\n4 GiB", "field": field,
        });
        let backend = FakeBackend::new(Script::Answer(400, None, body.to_string()));
        let output = backend.cloude().args(RUN).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(text(&output.stderr), expected);
    }
}

#[test]
fn values_come_from_options_then_variables_then_the_file() {
    let backend = FakeBackend::ending(exited(7));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloude/config.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(file.with_file_name("key"), "cloude_bbbbbbbbbbbb_22\n").unwrap();
    let lines = format!(
        "backend = {:?}\nkey_file = \"key\"\nretry_for = \"5s\"\n",
        backend.url()
    );
    std::fs::write(&file, lines).unwrap();
    let cloude = || {
        let mut command = common::cloude();
        command.env("XDG_CONFIG_HOME", folder.path());
        command
    };

    let output = cloude().args(RUN).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let sent = backend.shared.authorizations.lock().unwrap();
    assert_eq!(sent[0].as_deref(), Some("Bearer cloude_bbbbbbbbbbbb_22"));

    let rows = |command: &mut assert_cmd::Command| -> Vec<[String; 3]> {
        let output = command.args(["config", "--json"]).output().unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let field =
            |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let row = |row| ["name", "value", "origin"].map(|name| field(row, name));
        rows.iter().map(row).collect()
    };
    let path = file.display().to_string();
    let key_path = format!("in {}", file.with_file_name("key").display());
    let of_file = rows(&mut cloude());
    assert_eq!(of_file[0], ["backend", &backend.url(), &path]);
    assert_eq!(of_file[1], ["key", &key_path, &path]);
    assert_eq!(of_file[2], ["ca", "-", "default"]);
    assert_eq!(of_file[3], ["retry_for", "5s", &path]);
    let of_variables = rows(
        cloude()
            .env("CLOUDE_BACKEND", "http://b")
            .env("CLOUDE_API_KEY", "cloude_3f0a9c11d2e4_secret")
            .env("CLOUDE_RETRY_FOR", "6s"),
    );
    assert_eq!(of_variables[0], ["backend", "http://b", "CLOUDE_BACKEND"]);
    assert_eq!(
        of_variables[1],
        ["key", "cloude_3f0a9c11d2e4_…", "CLOUDE_API_KEY"]
    );
    assert_eq!(of_variables[3], ["retry_for", "6s", "CLOUDE_RETRY_FOR"]);
    let of_options = rows(cloude().env("CLOUDE_BACKEND", "http://b").args([
        "--backend",
        "http://c",
        "--token",
        "cloude_aaaaaaaaaaaa_11",
        "--retry-for",
        "0",
    ]));
    assert_eq!(of_options[0], ["backend", "http://c", "--backend"]);
    assert_eq!(of_options[1], ["key", "cloude_aaaaaaaaaaaa_…", "--token"]);
    assert_eq!(of_options[3], ["retry_for", "0s", "--retry-for"]);
}

#[test]
fn a_malformed_configuration_file_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloude/config.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    for (lines, part) in [
        ("\nfrob = 1\n", "config.toml, line 2: unknown field `frob`"),
        ("backend = \n", "config.toml, line 1"),
        ("retry_for = \"soon\"\n", "invalid time \"soon\""),
    ] {
        std::fs::write(&file, lines).unwrap();
        let mut command = common::cloude();
        command.env("XDG_CONFIG_HOME", folder.path()).arg("config");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        assert!(
            error.contains(part) && error.lines().count() == 1,
            "{error}"
        );
    }
}
