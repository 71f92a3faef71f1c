//! The interface of Piston v2.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::{Auth, Config};
use cloude_protocol::keys::Scope;
use serde_json::{Value, json};
use support::{Answer, Backend, capacity};

const EXECUTE: &str = "/api/v2/execute";

fn program(language: &str, code: &str) -> Value {
    json!({"language": language, "version": "*", "files": [{"content": code}]})
}

async fn with(change: impl FnOnce(&mut Config)) -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, change).await
}

fn message(answer: &Answer) -> String {
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn execute_answers_on_every_path_of_piston() {
    let backend = Backend::start().await;
    for path in [
        EXECUTE,
        "/api/v2/execute/",
        "/api/v2/piston/execute",
        "/api/v2/piston/execute/",
    ] {
        let answer = backend.post(path, program("py", "print hello")).await;
        let stage = json!({
            "stdout": "hello", "stderr": "", "output": "hello", "code": 0, "signal": null, "message": null,
            "status": null, "cpu_time": 1, "wall_time": 2, "memory": 1 << 20,
        });
        let expected = json!({"run": stage, "language": "python", "version": "1.2.3"});
        assert_eq!((answer.status, answer.json()), (200, expected), "{path}");
    }
}

#[tokio::test]
async fn the_agent_gets_every_field() {
    let backend = Backend::start().await;
    let body = json!({
        "language": "c++", "version": "1.x", "stdin": "in", "args": ["a b"],
        "files": [
            {"name": "a.cpp", "content": "print x"}, {"name": "b.cc", "content": "int b;"},
            {"name": "c", "content": "ff", "encoding": "hex"},
        ],
        "run_timeout": 1234, "compile_timeout": 77, "run_cpu_time": 55, "compile_cpu_time": 44,
        "run_memory_limit": 1100 << 20, "compile_memory_limit": -1,
    });

    let answer = backend.post(EXECUTE, body).await;

    assert_eq!(
        (answer.status, &answer.json()["language"]),
        (200, &json!("c++"))
    );
    let asked = backend.world.asked.lock().unwrap().take().unwrap();
    let compile = asked.compile.unwrap();
    assert!(
        compile.argv.contains(&"a.cpp".to_owned()),
        "{:?}",
        compile.argv
    );
    assert_eq!(compile.argv.last().unwrap(), "./b.cc");
    assert_eq!((compile.wall_time_ms, asked.run.wall_time_ms), (77, 1234));
    assert_eq!(
        (compile.limits.cpu_time_ms, asked.run.limits.cpu_time_ms),
        (Some(44), Some(55))
    );
    assert!(compile.kill_at_output_limit && asked.run.kill_at_output_limit);
    assert_eq!(asked.stdin.to_text(), "in");
    assert_eq!(asked.run.argv.last().unwrap(), "a b");
    let paths: Vec<_> = asked.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["a.cpp", "b.cc", "c"]);
    let specs = backend.world.specs.lock().unwrap();
    assert_eq!(specs[0].memory_mib, 1100_u64.next_multiple_of(64));
}

#[tokio::test]
async fn every_end_of_a_program_has_its_status() {
    let backend = Backend::start().await;
    for (language, code, expected) in [
        ("python", "exit 3", json!([3, null, "RE", "bye\n"])),
        ("python", "signal 11", json!([null, "SIGSEGV", "SG", ""])),
        ("python", "forever", json!([null, "SIGKILL", "TO", ""])),
        (
            "c",
            "uncompilable",
            json!([1, null, "RE", "main.c:1: error\n"]),
        ),
        ("c", "compiled x", json!([0, null, null, "x"])),
    ] {
        let answer = backend.post(EXECUTE, program(language, code)).await.json();
        let run = &answer["run"];
        let found = json!([run["code"], run["signal"], run["status"], run["output"]]);
        assert_eq!(found, expected, "{code}");
        let compile = answer.get("compile");
        assert_eq!(compile.is_some(), language == "c", "{code}");
        let failed = compile.is_some_and(|compile| compile["code"] != 0);
        assert!(!failed || compile == Some(run), "{code}");
    }
}

#[tokio::test]
async fn large_output_is_whole() {
    let backend = with(|config| config.limits.output_bytes = 4 << 20).await;
    let answer = backend.post(EXECUTE, program("python", "fill 1 120")).await;
    let run = answer.json()["run"].clone();
    let length = |name: &str| run[name].as_str().unwrap().len();
    assert_eq!(
        (length("stdout"), length("stderr"), length("output")),
        (1 << 20, 1 << 20, 2 << 20)
    );
}

#[tokio::test]
async fn runtimes_and_packages_have_the_names_of_piston() {
    let backend = Backend::start().await;
    let (runtimes, packages) = (
        backend.get("/api/v2/runtimes").await.json(),
        backend.get("/api/v2/packages").await.json(),
    );
    let runtimes = runtimes.as_array().unwrap();
    let of = |name: &str| runtimes.iter().find(|runtime| runtime["language"] == name);
    let javascript = of("javascript").unwrap();
    assert_eq!(javascript["runtime"], "node");
    assert_eq!(javascript["version"], "1.2.3");
    let aliases = javascript["aliases"].as_array().unwrap();
    assert!(aliases.contains(&json!("node-js")) && aliases.contains(&json!("node")));
    assert!(of("c++").is_some() && of("cpp").is_none());
    assert!(of("go").is_none(), "its image is not built");
    let packages = packages.as_array().unwrap();
    let go = packages.iter().find(|package| package["language"] == "go");
    assert_eq!(go.unwrap()["installed"], false);
    let python = json!({"language": "python", "language_version": "1.2.3", "installed": true});
    assert!(packages.contains(&python));
    for path in [
        "/api/v2/runtimes/",
        "/api/v2/piston/runtimes",
        "/api/v2/piston/packages",
    ] {
        assert_eq!(backend.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn every_name_and_alias_of_a_runtime_can_be_executed() {
    let backend = Backend::start().await;
    let runtimes = backend.get("/api/v2/runtimes").await.json();
    for runtime in runtimes.as_array().unwrap() {
        let aliases = runtime["aliases"].as_array().unwrap();
        for name in std::iter::once(&runtime["language"]).chain(aliases) {
            let mut body = program(name.as_str().unwrap(), "print x");
            body["version"] = runtime["version"].clone();
            let answer = backend.post(EXECUTE, body).await;
            let found = answer.json()["language"].clone();
            assert_eq!(
                (answer.status, &found),
                (200, &runtime["language"]),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn versions_are_ranges_of_npm() {
    let backend = Backend::start().await;
    for (version, status) in [
        ("*", 200),
        ("1.2.3", 200),
        ("1.x", 200),
        ("^1.2", 200),
        (">=2 || ~1.2", 200),
        ("1.2.4", 400),
        (">=2 <3", 400),
        ("latest", 400),
    ] {
        let mut body = program("python", "print x");
        body["version"] = version.into();
        let answer = backend.post(EXECUTE, body).await;
        assert_eq!(answer.status, status, "{version}");
        if status == 400 {
            let expected = format!("python-{version} runtime is unknown");
            assert_eq!(message(&answer), expected);
        }
    }
}

#[tokio::test]
async fn invalid_requests_have_a_message_and_a_status() {
    let backend = Backend::start().await;
    let with = |name: &str, value: Value| {
        let mut body = program("python", "print x");
        body[name] = value;
        body
    };
    for (body, status, text) in [
        (json!([]), 400, "invalid request body"),
        (json!({}), 400, "language is required as a string"),
        (
            with("version", json!(3)),
            400,
            "version is required as a string",
        ),
        (
            with("language", json!("cow")),
            400,
            "cow-* runtime is unknown",
        ),
        (
            with("run_timeout", json!(600_001)),
            400,
            "run_timeout cannot exceed the configured limit of 600000",
        ),
        (
            json!({
                "language": "c", "version": "*", "files": [{"content": "print x"}], "compile_timeout": 1e30,
            }),
            400,
            "compile_timeout cannot exceed the configured limit of 600000",
        ),
        (
            with("run_memory_limit", json!(1_u64 << 50)),
            400,
            "run_memory_limit cannot exceed the configured limit of ",
        ),
        (
            with(
                "files",
                json!([{"content": "print x"}, {"name": "../x", "content": ""}]),
            ),
            400,
            "invalid path `../x`",
        ),
        (
            with("stdin", json!("x".repeat(100_000))),
            413,
            "at most 65536",
        ),
    ] {
        let answer = backend.post(EXECUTE, body).await;
        assert_eq!(answer.status, status, "{text}");
        assert!(
            message(&answer).starts_with(text) || message(&answer).contains(text),
            "{text}"
        );
    }
    let go = backend.post(EXECUTE, program("go", "print x")).await;
    assert_eq!(
        (go.status, message(&go).starts_with("no image")),
        (500, true)
    );
    let missing = backend.get("/api/v2/nothing").await;
    assert_eq!((missing.status, message(&missing).is_empty()), (404, false));
    let method = backend.get(EXECUTE).await;
    assert_eq!((method.status, message(&method).is_empty()), (405, false));
    let elsewhere = backend.get("/api/v1/nothing").await;
    assert!(
        elsewhere.json().get("error").is_some(),
        "only on these paths"
    );
}

#[tokio::test]
async fn json_needs_no_content_type_on_these_paths_alone() {
    let backend = Backend::start().await;
    let body = program("python", "print x").to_string();
    let send = |path, headers: Vec<(&'static str, &'static str)>| {
        let (backend, body) = (&backend, body.clone());
        async move { backend.send("POST", path, &headers, body).await }
    };
    let text = ("content-type", "text/plain;charset=UTF-8");
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(send(EXECUTE, vec![]).await.status, 200);
    assert_eq!(send(EXECUTE, vec![text]).await.status, 200);
    assert_eq!(send("/run", vec![text]).await.status, 415);
    let refused = send(EXECUTE, vec![form]).await;
    assert_eq!(
        (
            refused.status,
            message(&refused).contains("application/json")
        ),
        (415, true)
    );
    let foreign = send(EXECUTE, vec![text, ("origin", "http://evil.example")]).await;
    assert_eq!((foreign.status, message(&foreign).is_empty()), (403, false));
}

#[tokio::test]
async fn a_key_needs_no_bearer() {
    let backend = with(|config| config.api.auth = Auth::Required).await;
    let (key, _) = backend.key(&[Scope::Run, Scope::Read]).await;
    let (reader, _) = backend.key(&[Scope::Read]).await;
    let bearer = format!("Bearer {key}");
    let body = program("python", "print x").to_string();
    let execute = |key: String| {
        let (backend, body) = (&backend, body.clone());
        async move {
            let headers = [("authorization", key.as_str())];
            backend.send("POST", EXECUTE, &headers, body).await
        }
    };
    assert_eq!(execute(bearer).await.status, 200);
    assert_eq!(execute(key.clone()).await.status, 200);
    for (key, status) in [(String::new(), 401), ("wrong".into(), 401), (reader, 403)] {
        let answer = execute(key).await;
        assert_eq!(
            (answer.status, message(&answer).is_empty()),
            (status, false)
        );
    }
    let none = backend.get("/api/v2/runtimes").await;
    assert_eq!(
        (none.status, none.headers.contains_key("www-authenticate")),
        (401, true)
    );
    let bare = [("authorization", key.as_str())];
    let elsewhere = backend.send("GET", "/v1/languages", &bare, "").await;
    assert_eq!(elsewhere.status, 401, "only on these paths");
}

#[tokio::test]
async fn a_full_queue_answers_429_with_retry_after() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(1, 1), state, |_| {}).await;
    let hold = || backend.post("/run", json!({"language": "python", "code": "hold"}));
    hold().await;
    backend.alive(1).await;
    hold().await;

    let refused = backend.post(EXECUTE, program("python", "print x")).await;

    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(!message(&refused).is_empty());
}

#[tokio::test]
async fn a_server_that_stops_answers_503_with_retry_after() {
    let backend = Backend::start().await;
    backend.service.drain();
    let refused = backend.post(EXECUTE, program("python", "print x")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(message(&refused).contains("shutting down"));
}

#[tokio::test]
async fn a_client_that_disconnects_ends_its_program() {
    let backend = Backend::start().await;
    let (mut sender, connection) = backend.connect().await;
    let body = program("python", "hold").to_string();
    let request = hyper::Request::post(EXECUTE)
        .header("host", "localhost")
        .body(http_body_util::Full::new(body.into()))
        .unwrap();
    let asked = tokio::spawn(async move { sender.send_request(request).await });
    backend.alive(1).await;

    connection.abort();

    backend.alive(0).await;
    asked.abort();
}

/// Installs clients from PyPI and npm, and shows their calls.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyPI and npm; run it with `--run-ignored all`"]
async fn unmodified_clients_work() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(8, 64), state, |_| {}).await;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/tests/piston-clients"
    );
    let mut command = tokio::process::Command::new(script);
    let status = command.args([&backend.url, "fake"]).status().await.unwrap();
    assert!(status.success());
}
