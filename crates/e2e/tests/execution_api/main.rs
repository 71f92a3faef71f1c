//! `/v1/executions` in VMs: each cause, artifacts, and executions that survive the server.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod killed;
mod requests;

use cloude_e2e::backend::Backend;
use cloude_e2e::curl;
use requests::{execute, executions, result, start};
use serde_json::{Value, json};

const OVERRIDES: &str = "vm.max_concurrent = 4";

fn python(code: &str, limits: Value) -> Value {
    json!({ "language": "python", "code": code, "limits": limits })
}

#[test]
fn every_cause_of_a_program_happens() {
    let backend = Backend::start(OVERRIDES);
    let table = [
        ("exit", python("raise SystemExit(3)", json!({}))),
        (
            "signal",
            python("import os; os.kill(os.getpid(), 11)", json!({})),
        ),
        (
            "wall_time",
            python(
                "import time\ntime.sleep(10**6)",
                json!({"wall_time_ms": 1000}),
            ),
        ),
        (
            "cpu_time",
            python(
                "while True: pass",
                json!({"cpu_time_ms": 500, "wall_time_ms": 600_000}),
            ),
        ),
        (
            "memory",
            python(
                "held = []\nwhile True: held.append(bytearray(1 << 20))",
                json!({"wall_time_ms": 600_000}),
            ),
        ),
        (
            "disk",
            python(
                "with open('f', 'wb') as f:\n  for i in range(64): f.write(b'x' * (1 << 20)); f.flush()",
                json!({"disk_bytes": 8 << 20, "wall_time_ms": 600_000}),
            ),
        ),
        (
            "processes",
            python(
                "import os, time\nfor i in range(64):\n  if os.fork() == 0: time.sleep(1000)",
                json!({"processes": 16, "wall_time_ms": 600_000}),
            ),
        ),
    ];
    for (cause, request) in table {
        let execution = execute(&backend, &request);
        assert_eq!(execution["cause"], cause, "{execution}");
    }
    let mut request = python(
        "while True: print('x' * 1000)",
        json!({"output_bytes": 10_000, "wall_time_ms": 600_000}),
    );
    request["on_output_limit"] = "kill".into();
    let execution = execute(&backend, &request);
    assert_eq!(execution["cause"], "output_limit", "{execution}");

    let id = start(
        &backend,
        &python(
            "import time\ntime.sleep(10**6)",
            json!({"wall_time_ms": 600_000}),
        ),
    );
    let answer = curl::curl(&[
        "--request",
        "DELETE",
        &format!("{}/{id}", executions(&backend)),
    ]);
    assert_eq!(answer.unwrap().body["cause"], "cancelled");

    let mut request = python("1", json!({}));
    request["user"] = "nobody-of-this-name".into();
    assert_eq!(execute(&backend, &request)["cause"], "infrastructure");
    backend.stop();
}

#[test]
fn matching_files_come_back_as_artifacts() {
    let backend = Backend::start(OVERRIDES);
    let mut request = python(
        "import os\nos.makedirs('out/deep')\nopen('out/deep/a.bin', 'wb').write(bytes(range(256)))\nopen('b.txt', 'w').write('b')\nos.symlink('/etc/passwd', 'out/link')",
        json!({}),
    );
    request["artifacts"] = json!(["out/**"]);
    let execution = execute(&backend, &request);
    assert_eq!(
        execution["artifacts"][0]["path"], "out/deep/a.bin",
        "{execution}"
    );
    assert_eq!(execution["artifacts"][0]["bytes"], 256);
    assert_eq!(execution["artifacts"].as_array().unwrap().len(), 1);
    assert_eq!(execution["artifacts_dropped"], 1);
    let id = execution["id"].as_str().unwrap();
    let url = format!("{}/{id}/artifacts/out/deep/a.bin", executions(&backend));
    let bytes = std::process::Command::new("curl")
        .args(["--silent", "--noproxy", "*", &url])
        .output()
        .unwrap()
        .stdout;
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    backend.stop();
}

#[test]
fn a_batch_of_a_compiled_language_is_compiled_once() {
    let backend = Backend::start(OVERRIDES);
    let code =
        "#include <stdio.h>\nint main(int argc, char **argv) { puts(argv[1]); return argc; }";
    let limits = json!({"wall_time_ms": 600_000, "compile": {"wall_time_ms": 600_000}});
    let request = json!({ "language": "c", "code": code, "limits": limits });
    let inputs = json!([{"args": ["one"]}, {"args": ["two"]}, {"args": ["three"]}]);
    let body = json!({ "request": request, "inputs": inputs });

    let answer = curl::post(&format!("{}/v1/batches", backend.url()), &body.to_string());

    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let mut compiled = 0;
    let executions = answer.body["executions"].as_array().unwrap();
    for (execution, word) in executions.iter().zip(["one", "two", "three"]) {
        let execution = result(&backend, execution["id"].as_str().unwrap());
        assert_eq!(execution["stdout"], format!("{word}\n"), "{execution}");
        assert_eq!(execution["exit_code"], 2);
        compiled += usize::from(execution["compile"]["shared"] != true);
    }
    assert_eq!(compiled, 1);
    backend.stop();
}
