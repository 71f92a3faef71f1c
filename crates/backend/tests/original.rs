//! The interface of the first Cloude, and invalid requests.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::Backend;

#[tokio::test]
async fn root_and_health_answer() {
    let backend = Backend::start().await;
    let root = backend.get("/").await;
    assert_eq!(
        (root.status, root.json()["service"].as_str()),
        (200, Some("clouded"))
    );
    assert_eq!(root.json()["version"], env!("CARGO_PKG_VERSION"));
    let health = backend.get("/health").await;
    assert_eq!(
        (health.status, health.json()),
        (200, json!({"status": "ok"}))
    );
}

#[tokio::test]
async fn run_returns_an_id_and_status_the_result() {
    let backend = Backend::start().await;
    let answer = backend
        .post("/run", json!({"language": "PY", "code": "print hello"}))
        .await;
    assert_eq!(answer.status, 200);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        backend.finished(&id).await,
        json!({"id": id, "status": "done", "language": "python", "exit_code": 0, "stdout": "hello", "stderr": ""})
    );
}

#[tokio::test]
async fn every_end_of_a_program_has_its_exit_code() {
    let backend = Backend::start().await;
    let table = [
        ("python", "exit 3", "done", json!(3), "bye\n"),
        ("python", "signal 11", "done", json!(139), ""),
        ("python", "forever", "done", json!(124), ""),
        ("c", "uncompilable", "done", json!(1), "main.c:1: error\n"),
        (
            "go",
            "print x",
            "error",
            json!(null),
            "no image; `cloude-initramfs build --language go`",
        ),
    ];
    for (language, code, status, exit_code, stderr) in table {
        let id = backend
            .post("/run", json!({"language": language, "code": code}))
            .await
            .json();
        let result = backend.finished(id["id"].as_str().unwrap()).await;
        assert_eq!(result["status"], status, "{code}");
        assert_eq!(result["exit_code"], exit_code, "{code}");
        assert_eq!(result["stderr"], stderr, "{code}");
    }
}

#[tokio::test]
async fn status_of_a_running_program_has_its_output_so_far() {
    let backend = Backend::start().await;
    let id = backend
        .post("/run", json!({"language": "python", "code": "hold"}))
        .await
        .json();
    let path = format!("/status/{}", id["id"].as_str().unwrap());
    let mut status = backend.get(&path).await.json();
    while status["stdout"] != "held\n" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        status = backend.get(&path).await.json();
    }
    assert_eq!(
        (&status["status"], &status["exit_code"]),
        (&json!("running"), &json!(null))
    );
    backend.world.go_on.notify_one();
    assert_eq!(
        backend.finished(id["id"].as_str().unwrap()).await["status"],
        "done"
    );
}

type Request = (&'static str, &'static str, Option<&'static str>, String);

fn run_raw(body: &str) -> Request {
    ("POST", "/run", Some("application/json"), body.to_owned())
}

fn run(body: serde_json::Value) -> Request {
    run_raw(&body.to_string())
}

fn get(path: &'static str) -> Request {
    ("GET", path, None, String::new())
}

/// An execution with one more field.
fn with(key: &str, value: serde_json::Value) -> Request {
    let mut body = json!({"language": "python", "code": "x"});
    body[key] = value;
    (
        "POST",
        "/v1/executions",
        Some("application/json"),
        body.to_string(),
    )
}

/// Sends each request and compares the status, and a part of the error.
async fn assert_refused<const N: usize>(table: [(Request, u16, &str); N]) {
    let backend = Backend::start().await;
    for ((method, path, content_type, body), status, message) in table {
        let headers: Vec<_> = content_type
            .iter()
            .map(|value| ("content-type", *value))
            .collect();
        let short: String = body.chars().take(80).collect();
        let answer = backend.send(method, path, &headers, body).await;
        let error = answer.failure();
        assert_eq!(answer.status, status, "{method} {path} {short}: {error}");
        assert!(error.contains(message), "{method} {path} {short}: {error}");
    }
}

#[tokio::test]
async fn an_invalid_body_gets_its_status_and_reason() {
    let huge = "x".repeat(100 << 10);
    let body_over_limit = "x".repeat(2 << 20);
    let supported = cloude_protocol::languages::names(&support::languages()).unwrap();
    let unsupported = format!(
        "unsupported language `cobol`; supported: {}",
        supported.join(", ")
    );

    assert_refused([
        (
            run(json!({"language": "python", "code": ""})),
            400,
            "`code` is empty",
        ),
        (
            run(json!({"language": "python", "code": " \n"})),
            400,
            "`code` is empty",
        ),
        (
            run(json!({"language": "cobol", "code": "x"})),
            400,
            &unsupported,
        ),
        (
            run(json!({"language": "", "code": "x"})),
            400,
            "unsupported language ``",
        ),
        (
            run(json!({"language": "python"})),
            400,
            "missing field `code`",
        ),
        (
            run(json!({"language": 3, "code": "x"})),
            400,
            "expected a string",
        ),
        (
            run(json!({"language": "python", "code": huge})),
            413,
            "65536 are allowed",
        ),
        (
            run_raw(&body_over_limit),
            413,
            "larger than this server allows",
        ),
        (run_raw(""), 400, "empty request body"),
        (run_raw("{\"language\": \"python\", "), 400, "EOF"),
        (run_raw("[]"), 400, "invalid request body"),
        (run_raw("\u{fffd}"), 400, "invalid request body"),
        (
            ("POST", "/run", Some("text/plain"), "{}".into()),
            415,
            "Content-Type: application/json",
        ),
        (
            ("POST", "/run", None, "{}".into()),
            415,
            "Content-Type: application/json",
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_unknown_path_or_method_gets_its_status() {
    assert_refused([
        (("PUT", "/run", None, String::new()), 405, "method"),
        (("DELETE", "/status/x", None, String::new()), 405, "method"),
        (get("/run"), 405, "method"),
        (get("/nothing"), 404, "no such endpoint"),
        (
            get("/status/unknown"),
            404,
            "no execution has the id `unknown`",
        ),
        (get("/status/%00%0a"), 404, "no execution has the id"),
        (
            get("/v1/executions/unknown"),
            404,
            "no execution has the id",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_user_that_is_no_name_is_refused() {
    for user in ["", "a b", "a:b:c", "root:", "../x", &"u".repeat(33)] {
        assert_refused([(
            with("user", json!(user)),
            400,
            "give `root`, or another user",
        )])
        .await;
    }
}

#[tokio::test]
async fn a_limit_out_of_range_is_refused_with_its_range() {
    assert_refused([
        (
            with("limits", json!({"memory_bytes": 1})),
            400,
            "`limits.memory_bytes` is 1, this server allows 67108864 to",
        ),
        (
            with("limits", json!({"memory_bytes": 9_000_000_000_000_u64})),
            400,
            "this server allows 67108864 to",
        ),
        (
            with("limits", json!({"vcpus": 9})),
            400,
            "it must be 1 to 8",
        ),
        (with("limits", json!({"vcpus": 900})), 400, "expected u8"),
        (
            with("limits", json!({"wall_time_ms": 0})),
            400,
            "`limits.wall_time_ms` is 0",
        ),
        (
            with("limits", json!({"wall_time_ms": 99_999_999})),
            400,
            "`limits.wall_time_ms`",
        ),
        (
            with("limits", json!({"output_bytes": 1_u64 << 40})),
            400,
            "`limits.output_bytes`",
        ),
        (
            with("limits", json!({"wall_tim": 1})),
            400,
            "unknown field `wall_tim`",
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_invalid_field_is_refused_with_its_name() {
    assert_refused([
        (with("sdtin", json!("x")), 400, "unknown field `sdtin`"),
        (
            with("files", json!([{"path": "../x", "content": ""}])),
            400,
            "`..`",
        ),
        (
            with("files", json!([{"path": "/etc/x", "content": ""}])),
            400,
            "relative",
        ),
        (
            with("files", json!([{"path": "", "content": ""}])),
            400,
            "empty",
        ),
        (
            with("files", json!([{"path": "main.py", "content": ""}])),
            400,
            "`main.py` in `files` is the program's own path",
        ),
        (
            with(
                "files",
                json!([{"path": "a/b", "content": ""}, {"path": "a", "content": ""}]),
            ),
            400,
            "`a` in `files` cannot be both a file and the folder of `a/b`",
        ),
        (
            with("files", json!([{"path": "main.py/b/c", "content": ""}])),
            400,
            "`main.py` cannot be both the program and the folder of `main.py/b/c`",
        ),
        (
            with("files", json!([{"path": "a", "content": {"base64": "*"}}])),
            400,
            "base64",
        ),
        (with("args", json!(["a\u{0}b"])), 400, "NUL byte"),
        (
            with("env", json!({"A=B": "x"})),
            400,
            "`env` has the invalid variable `A=B`",
        ),
    ])
    .await;
}

#[tokio::test]
async fn files_with_a_common_prefix_are_accepted() {
    let backend = Backend::start().await;
    let files = json!([
        {"path": "a", "content": ""}, {"path": "ab/c", "content": ""}, {"path": "ab/d", "content": ""},
    ]);
    let body = json!({"language": "python", "code": "print x", "files": files});
    let answer = backend.post("/v1/executions", body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
}

#[tokio::test]
async fn a_full_queue_answers_429_with_retry_after() {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(support::capacity(1, 1), state, |_| {}).await;
    let hold = || backend.post("/run", json!({"language": "python", "code": "hold"}));
    let running = hold().await;
    backend.alive(1).await;
    let waiting = hold().await;
    let refused = hold().await;
    assert_eq!(
        (running.status, waiting.status, refused.status),
        (200, 200, 429)
    );
    let retry_after: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&retry_after));
    assert!(refused.failure().contains("try again"));
    for answer in [running, waiting] {
        backend.alive(1).await;
        backend.world.go_on.notify_one();
        assert_eq!(
            backend
                .finished(answer.json()["id"].as_str().unwrap())
                .await["status"],
            "done"
        );
    }
}

#[tokio::test]
async fn a_draining_server_refuses_and_finishes() {
    let backend = Backend::start().await;
    let running = backend
        .post("/run", json!({"language": "python", "code": "hold"}))
        .await
        .json();
    backend.alive(1).await;
    backend.service.drain();
    let refused = backend
        .post("/run", json!({"language": "python", "code": "print x"}))
        .await;
    assert_eq!(refused.status, 503);
    assert_eq!(backend.get("/health").await.status, 503);
    backend.world.go_on.notify_one();
    backend
        .service
        .finish(std::time::Duration::from_secs(300))
        .await;
    assert_eq!(
        backend.finished(running["id"].as_str().unwrap()).await["status"],
        "done"
    );
}
