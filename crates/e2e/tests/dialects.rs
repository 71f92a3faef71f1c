//! Interfaces of other servers over VMs: each verdict of Judge0, and clients of all dialects at the same time.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cloude_e2e::backend::Backend;
use cloude_e2e::{curl, host};
use serde_json::{Value, json};

const OVERRIDES: &str = "vm.max_concurrent = 4";
const PYTHON: u32 = 71;
const C: u32 = 50;
/// Seconds that a program may take on any host.
const LONG_S: u32 = 600;

fn url(backend: &Backend, path: &str) -> String {
    format!("{}{path}", backend.url())
}

/// Posts a submission and waits for all of its fields.
fn judged(backend: &Backend, submission: &Value) -> Value {
    let url = url(backend, "/submissions?wait=true&fields=*");
    let answer = curl::post(&url, &submission.to_string());
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    answer.body
}

fn submission(language_id: u32, code: &str) -> Value {
    json!({"language_id": language_id, "source_code": code, "wall_time_limit": LONG_S})
}

/// Waits until a submission has a verdict.
fn verdict(backend: &Backend, token: &str) -> Value {
    host::wait_for("the submission gets a verdict", || {
        let url = url(backend, &format!("/submissions/{token}?fields=*"));
        let answer = curl::get(&url)?;
        (answer.body["status_id"].as_u64()? > 2).then_some(answer.body)
    })
}

#[test]
fn every_verdict_of_judge0_happens() {
    let backend = Backend::start(OVERRIDES);
    let main = |body: &str| {
        format!("#include <stdlib.h>\n#include <stdio.h>\nint main(void) {{ {body} }}")
    };
    let mut spins = submission(PYTHON, "while True: pass");
    spins["cpu_time_limit"] = json!(0.5);
    spins["cpu_extra_time"] = json!(0);
    let mut sleeps = submission(PYTHON, "import time; time.sleep(10**6)");
    sleeps["wall_time_limit"] = json!(1);
    let mut writes = submission(
        C,
        &main("FILE *f = fopen(\"f\", \"w\"); for (;;) fputc('x', f);"),
    );
    writes["max_file_size"] = json!(4);
    let mut object = submission(C, &main("return 0;"));
    object["compiler_options"] = json!("-c");
    let expecting = |text: &str| {
        let mut body = submission(PYTHON, "print('a ')");
        body["expected_output"] = json!(text);
        body
    };
    let table = [
        (3, expecting("a\n\n")),
        (4, expecting("b")),
        (5, spins),
        (5, sleeps),
        (6, submission(C, "int main(")),
        (7, submission(C, &main("*(volatile int *)0 = 1;"))),
        (8, writes),
        (
            9,
            submission(
                C,
                &main("volatile int seven = 7, zero = 0; return seven / zero;"),
            ),
        ),
        (10, submission(C, &main("abort();"))),
        (11, submission(PYTHON, "raise SystemExit(3)")),
        (12, submission(PYTHON, "import os; os.kill(os.getpid(), 9)")),
        (14, object),
    ];
    for (status, body) in table {
        let answer = judged(&backend, &body);
        println!(
            "{}: {} {} {}",
            answer["status"], answer["message"], answer["time"], answer["memory"]
        );
        assert_eq!(answer["status_id"], status, "{answer}");
    }
    backend.stop();
}

#[test]
fn a_submission_survives_kill_minus_nine() {
    let mut backend = Backend::start(OVERRIDES);
    let mut body = submission(PYTHON, "import time; time.sleep(3); print(input())");
    body["stdin"] = json!("in");
    body["expected_output"] = json!("in");
    let created = curl::post(&url(&backend, "/submissions"), &body.to_string());
    let token = created.body["token"].as_str().unwrap().to_owned();

    backend.kill();
    host::wait_for("no VM outlives its backend", || {
        host::descendants().is_empty().then_some(())
    });
    backend.restart();

    let answer = verdict(&backend, &token);
    assert_eq!(
        (&answer["status_id"], &answer["stdout"]),
        (&json!(3), &json!("in\n"))
    );
    backend.stop();
}

/// The output of a program by one of the dialects.
fn printed(backend: &Backend, dialect: usize, number: usize) -> String {
    let code = format!("print('{dialect}-{number}', end='')");
    let post = |path: &str, body: Value| {
        let answer = curl::post(&url(backend, path), &body.to_string());
        assert!(matches!(answer.status, 200 | 201), "{:?}", answer.body);
        answer.body
    };
    let output = match dialect {
        0 => {
            let files = json!([{"content": code}]);
            let body = json!({
                "language": "python", "version": "*", "files": files, "run_timeout": LONG_S * 1000,
            });
            post("/api/v2/execute", body)["run"]["stdout"].clone()
        }
        1 => {
            let created = post("/submissions", submission(PYTHON, &code));
            verdict(backend, created["token"].as_str().unwrap())["stdout"].clone()
        }
        _ => {
            let id = post("/run", json!({"language": "python", "code": code}))["id"].clone();
            let status = format!("/status/{}", id.as_str().unwrap());
            host::wait_for("the execution ends", || {
                let body = curl::get(&url(backend, &status))?.body;
                matches!(body["status"].as_str(), Some("done" | "error")).then_some(body)
            })["stdout"]
                .clone()
        }
    };
    output.as_str().unwrap_or_default().to_owned()
}

/// `CLOUDE_CLIENTS` sets the number of clients of each dialect.
#[test]
fn clients_of_all_dialects_get_their_own_answers() {
    let clients = std::env::var("CLOUDE_CLIENTS").ok();
    let clients = clients.map_or(4, |number| number.parse().unwrap());
    let backend = Backend::start(OVERRIDES);
    std::thread::scope(|scope| {
        for dialect in 0..3 {
            for number in 0..clients {
                let backend = &backend;
                scope.spawn(move || {
                    let expected = format!("{dialect}-{number}");
                    assert_eq!(printed(backend, dialect, number), expected);
                });
            }
        }
    });
    backend.stop();
}
