//! The HTTP API, through curl and `cloude`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cloude_e2e::backend::Backend;
use cloude_e2e::curl::{self, Answer};
use cloude_e2e::{cloude, host};

/// Polls `GET /status/ID` until the execution has ended.
fn ended(backend: &Backend, id: &str) -> Answer {
    let url = format!("{}/status/{id}", backend.url());
    host::wait_for("the execution ends", || {
        let answer = curl::get(&url).expect("the backend answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        matches!(answer.body["status"].as_str(), Some("done" | "error")).then_some(answer)
    })
}

#[test]
fn run_and_status_answer_as_the_original_did() {
    let backend = Backend::start("");
    let url = backend.url();
    assert_eq!(curl::get(&format!("{url}/")).unwrap().status, 200);

    let started = curl::post(
        &format!("{url}/run"),
        r#"{"language":"SH","code":"echo out; echo err >&2; exit 3"}"#,
    );
    assert_eq!(started.status, 200, "{started:?}");
    let id = started.body["id"].as_str().unwrap().to_owned();
    assert_eq!(
        started.body.as_object().unwrap().len(),
        1,
        "the response has more fields than `id`: {started:?}"
    );

    let status = ended(&backend, &id).body;
    let expected = serde_json::json!({
        "id": id, "status": "done", "language": "bash", "exit_code": 3, "stdout": "out\n", "stderr": "err\n",
    });
    assert_eq!(status, expected);
    backend.stop();
}

#[test]
fn go_prints_an_id_and_status_knows_it() {
    let backend = Backend::start("");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sh");
    std::fs::write(&path, "echo hello").unwrap();
    let output = cloude::run(
        &backend,
        &["go", "--language", "bash", "--file", path.to_str().unwrap()],
    );
    assert!(output.status.success(), "{}", cloude::describe(&output));
    let id = String::from_utf8(output.stdout).unwrap();
    let id = id.trim();
    ended(&backend, id);
    let output = cloude::run(&backend, &["status", id]);
    assert!(output.status.success(), "{}", cloude::describe(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("done") && text.contains("hello") && text.contains(id),
        "{text}"
    );
    backend.stop();
}

#[test]
fn bad_requests_get_a_specific_error_and_start_no_vm() {
    // Method, path, body, expected status, and a part of the expected `error`.
    const TABLE: &[(&str, &str, &str, u16, &str)] = &[
        (
            "POST",
            "/run",
            r#"{"language":"python","code":""}"#,
            400,
            "code",
        ),
        (
            "POST",
            "/run",
            r#"{"language":"cobol","code":"x"}"#,
            400,
            "python",
        ),
        (
            "POST",
            "/run",
            r#"{"language":"","code":"x"}"#,
            400,
            "python",
        ),
        ("POST", "/run", r#"{"language":"python"}"#, 400, "code"),
        ("POST", "/run", r#"{"code":"x"}"#, 400, "language"),
        ("POST", "/run", r#"{"language":3,"code":"x"}"#, 400, ""),
        (
            "POST",
            "/run",
            r#"{"language":"python","code":"x""#,
            400,
            "",
        ),
        ("POST", "/run", "", 400, ""),
        ("POST", "/run", "[]", 400, ""),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","no_such_field":1}"#,
            400,
            "no_such_field",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","limits":{"vcpus":0}}"#,
            400,
            "vcpus",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","limits":{"vcpus":99}}"#,
            400,
            "vcpus",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","limits":{"memory_bytes":1}}"#,
            400,
            "memory",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","limits":{"wall_time_ms":0}}"#,
            400,
            "wall_time",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","files":[{"path":"../x","content":""}]}"#,
            400,
            "../x",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","files":[{"path":"/x","content":""}]}"#,
            400,
            "/x",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","env":{"A=B":"c"}}"#,
            400,
            "",
        ),
        (
            "POST",
            "/v1/executions",
            r#"{"language":"bash","code":"x","stdin":{"base64":"*"}}"#,
            400,
            "base64",
        ),
        ("GET", "/status/no-such-id", "", 404, "no-such-id"),
        (
            "GET",
            "/status/00000000-0000-4000-8000-000000000000",
            "",
            404,
            "",
        ),
        ("GET", "/no/such/path", "", 404, ""),
        ("GET", "/run", "", 405, ""),
        ("DELETE", "/health", "", 405, ""),
    ];
    let backend = Backend::start("");
    for (method, path, body, status, says) in TABLE {
        let url = format!("{}{path}", backend.url());
        let mut arguments = vec![
            "--request",
            method,
            "--header",
            "content-type: application/json",
        ];
        if *method == "POST" {
            arguments.extend(["--data-binary", body]);
        }
        arguments.push(&url);
        let answer = curl::curl(&arguments).unwrap();
        println!(
            "{method} {path} {body} -> {} {}",
            answer.status, answer.body
        );
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        let error = answer.body["error"]
            .as_str()
            .or(answer.body["detail"].as_str())
            .unwrap_or_else(|| panic!("{method} {path} {body}: no error in {answer:?}"));
        assert!(
            error.to_lowercase().contains(says),
            "{method} {path} {body}: {says:?} is not in {error:?}"
        );
    }
    assert!(
        host::descendants()
            .iter()
            .all(|(_, command)| !command.contains("cloude-vmm")),
        "a VM was started"
    );
    backend.stop();
}

#[test]
fn a_full_queue_answers_429_with_retry_after() {
    let backend = Backend::start("vm.max_concurrent = 1\nqueue.capacity = 1");
    let url = format!("{}/run", backend.url());
    let body = r#"{"language":"bash","code":"exit 5"}"#;
    let holding = cloude::start_holding(&backend);
    let waits = curl::post(&url, body);
    assert_eq!(waits.status, 200, "{waits:?}");

    let refused = curl::post(&url, body);

    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.headers.contains("retry-after:"), "{refused:?}");
    cloude::interrupt(holding);
    let status = ended(&backend, waits.body["id"].as_str().unwrap());
    assert_eq!(status.body["exit_code"], 5, "{status:?}");
    backend.stop();
}
