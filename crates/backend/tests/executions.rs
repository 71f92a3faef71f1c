//! `/v1/executions`: results, event streams, disconnecting clients and malicious guests.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use cloude_backend::tenant::Tenant;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use cloude_backend::jobs::{Client, Stop};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionEvent, ExecutionRequest, LanguageInfo, Status};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use serde_json::json;
use support::Backend;

async fn execute(backend: &Backend, code: &str) -> Execution {
    let answer = backend
        .post(
            "/v1/executions",
            json!({"language": "python", "code": code}),
        )
        .await;
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

fn post(code: &str, accept: &str) -> Request<Full<Bytes>> {
    let body = json!({"language": "python", "code": code}).to_string();
    Request::post("/v1/executions")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(Full::new(body.into()))
        .unwrap()
}

#[tokio::test]
async fn the_answer_is_the_execution_with_its_timings() {
    let backend = Backend::start().await;
    let execution = execute(&backend, "exit 3").await;
    assert_eq!(
        (execution.status, execution.cause),
        (Status::Done, Cause::Exit)
    );
    assert_eq!(
        (execution.exit_code, execution.stderr.to_text()),
        (Some(3), "bye\n".to_owned())
    );
    assert_eq!(execution.timings.run_us, 1500, "as the guest measured");
    assert!(execution.timings.total_us >= execution.timings.start_us);
    let path = format!("/v1/executions/{}", execution.id);
    let again: Execution = serde_json::from_slice(&backend.get(&path).await.body).unwrap();
    assert_eq!(again, execution);
    let status = backend
        .get(&format!("/status/{}", execution.id))
        .await
        .json();
    assert_eq!(status["exit_code"], 3);
}

#[tokio::test]
async fn the_agent_gets_the_values_of_request_and_language() {
    let backend = Backend::start().await;
    let body = json!({
        "language": "c++", "code": "print x", "stdin": "in", "args": ["a b"],
        "env": {"LANG": "de", "X": "1"}, "files": [{"path": "d/f", "content": {"base64": "/w=="}}],
        "limits": {
            "wall_time_ms": 1234, "output_bytes": 99, "vcpus": 3, "memory_bytes": 700 << 20,
            "compile": {"wall_time_ms": 77}
        },
        "network": true, "user": "node:9", "unconfined": true
    });
    assert_eq!(backend.post("/v1/executions", body).await.status, 200);
    let asked = backend.world.asked.lock().unwrap().take().unwrap();
    let compile = asked.compile.unwrap();
    assert_eq!(
        (compile.argv[0].as_str(), compile.wall_time_ms),
        ("g++", 77)
    );
    assert_eq!(asked.run.argv, ["./main", "a b"]);
    assert_eq!((asked.run.wall_time_ms, asked.run.output_bytes), (1234, 99));
    assert_eq!(
        (asked.env["LANG"].as_str(), asked.env["X"].as_str()),
        ("de", "1")
    );
    assert_eq!(asked.files[0].path, "main.cpp");
    assert_eq!(
        (asked.files[1].path.as_str(), &asked.files[1].content.0[..]),
        ("d/f", &[0xff][..])
    );
    assert_eq!(asked.stdin.to_text(), "in");
    assert_eq!(
        (asked.user.as_deref(), asked.unconfined),
        (Some("node:9"), true)
    );
    let spec = backend.world.specs.lock().unwrap().pop().unwrap();
    assert_eq!((spec.vcpus, spec.memory_mib, spec.network), (3, 768, true));
}

#[tokio::test]
async fn a_stream_has_output_at_once_and_ends_with_the_result() {
    let backend = Backend::start().await;
    let (mut sender, _connection) = backend.connect().await;
    let response = sender
        .send_request(post("hold", "application/x-ndjson"))
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.contains("held") {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&frame).unwrap());
    }
    backend.world.go_on.notify_one();
    text.push_str(std::str::from_utf8(&body.collect().await.unwrap().to_bytes()).unwrap());
    let events: Vec<ExecutionEvent> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
    assert!(
        kinds[0].starts_with("Accepted") && kinds[1].starts_with("Started"),
        "{kinds:?}"
    );
    let Some(ExecutionEvent::Result(result)) = events.last() else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        (result.exit_code, result.stdout.0.len()),
        (Some(0), 0),
        "the output was sent before"
    );
    let stored: Execution = serde_json::from_slice(
        &backend
            .get(&format!("/v1/executions/{}", result.id))
            .await
            .body,
    )
    .unwrap();
    assert_eq!(stored.stdout.to_text(), "held\n");
}

#[tokio::test]
async fn a_closed_connection_cancels_the_execution() {
    for accept in ["application/json", "application/x-ndjson"] {
        let backend = Backend::start().await;
        let (mut sender, connection) = backend.connect().await;
        let request = tokio::spawn(async move {
            let response = sender.send_request(post("hold", accept)).await;
            // The head of a stream arrives at once. The client then reads until it is aborted.
            if let Ok(response) = response {
                let _ = response.into_body().collect().await;
            }
        });
        backend.alive(1).await;
        let id = backend.world.specs.lock().unwrap()[0].id.clone();
        connection.abort();
        request.abort();
        let status = backend.finished(&id).await;
        assert_eq!(status["status"], "error", "{accept}");
        assert!(
            status["stderr"]
                .as_str()
                .unwrap()
                .contains("cancelled: the client disconnected"),
            "{status}"
        );
        backend.alive(0).await;
    }
}

#[tokio::test]
async fn a_queued_execution_can_be_cancelled() {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(support::capacity(1, 8), state, |_| {}).await;
    let first = backend
        .post("/run", json!({"language": "python", "code": "hold"}))
        .await
        .json();
    backend.alive(1).await;
    let request = ExecutionRequest {
        language: "python".into(),
        code: "print x".into(),
        ..Default::default()
    };
    let waiting = backend
        .service
        .submit(Tenant::local(), request, Client::Waits)
        .await
        .unwrap();
    waiting.stop(Stop::Disconnected);
    assert_eq!(waiting.finished().await.cause, Cause::Cancelled);
    backend.world.go_on.notify_one();
    assert_eq!(
        backend.finished(first["id"].as_str().unwrap()).await["status"],
        "done"
    );
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failed_guest_is_an_error_with_its_cause() {
    let backend = Backend::start().await;
    let id = backend
        .post("/run", json!({"language": "python", "code": "hold"}))
        .await
        .json();
    backend.alive(1).await;
    backend.world.die.notify_one();
    let id = id["id"].as_str().unwrap();
    assert_eq!(backend.finished(id).await["status"], "error");
    let execution = backend.get(&format!("/v1/executions/{id}")).await.json();
    assert_eq!(execution["cause"], "guest_panic");
    assert!(execution["error"].as_str().unwrap().contains("panicked"));
    backend.alive(0).await;
}

#[tokio::test]
async fn a_malicious_guest_causes_an_error_of_its_execution() {
    let backend = Backend::start().await;
    let table = [
        ("flood", "more output than its limit"),
        ("endless-line", "an event over"),
        ("garbage", "an invalid event"),
        ("hang-up", "without a result"),
    ];
    for (code, message) in table {
        let execution = execute(&backend, code).await;
        assert_eq!(
            (execution.status, execution.cause),
            (Status::Error, Cause::Infrastructure),
            "{code}"
        );
        let error = execution.error.unwrap();
        assert!(error.contains(message), "{code}: {error}");
    }
    let kept = execute(&backend, "flood").await.stdout.0.len();
    assert!(kept <= (1 << 20) + (256 << 10), "{kept} bytes kept");
    backend.alive(0).await;
}

#[tokio::test]
async fn a_stuck_guest_is_killed_after_its_limits_and_the_grace() {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(support::capacity(2, 8), state, |config| {
        config.agent.grace_ms = 10
    })
    .await;
    let body = json!({"language": "python", "code": "hold", "limits": {"wall_time_ms": 10}});
    let execution = backend.post("/v1/executions", body).await.json();
    assert_eq!(
        (&execution["status"], &execution["cause"]),
        (&json!("error"), &json!("infrastructure"))
    );
    assert!(execution["error"].as_str().unwrap().contains("wall-clock"));
    backend.alive(0).await;
}

#[tokio::test]
async fn a_vm_that_does_not_start_is_an_error() {
    let backend = Backend::start().await;
    let body = json!({"language": "python", "code": "print x", "limits": {"vcpus": 7}});
    let execution = backend.post("/v1/executions", body).await.json();
    assert_eq!(execution["status"], "error");
    assert_eq!(execution["error"], "no machine with seven vCPUs");
}

#[tokio::test]
async fn many_executions_never_exceed_the_vms() {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(support::capacity(3, 64), state, |_| {}).await;
    let all = (0..40).map(|number| {
        let backend = &backend;
        async move {
            execute(backend, &format!("print {number}"))
                .await
                .stdout
                .to_text()
        }
    });
    let outputs = futures_util::future::join_all(all).await;
    assert_eq!(
        outputs,
        (0..40).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    assert!(backend.world.most_alive.load(Ordering::SeqCst) <= 3);
    assert_eq!(backend.world.launched.load(Ordering::SeqCst), 40);
}

#[tokio::test]
async fn a_result_has_the_version_and_the_digest_of_the_image() {
    let backend = Backend::start().await;
    let execution = execute(&backend, "print x").await;
    assert_eq!(execution.version.as_deref(), Some("Python 1.2.3"));
    assert_eq!(execution.image_digest.as_deref(), Some("sha256:1"));
}

#[tokio::test]
async fn languages_show_whether_their_image_is_ready() {
    let backend = Backend::start().await;
    let languages: Vec<LanguageInfo> =
        serde_json::from_slice(&backend.get("/v1/languages").await.body).unwrap();
    let ready = |name: &str| {
        languages
            .iter()
            .find(|l| l.name == name)
            .unwrap()
            .image_ready
    };
    let names = cloude_protocol::languages::names(&support::languages()).unwrap();
    assert!(languages.iter().map(|l| &l.name).eq(&names));
    assert!(ready("python") && !ready("go"));
    let python = languages.iter().find(|l| l.name == "python").unwrap();
    assert_eq!(python.version.as_deref(), Some("Python 1.2.3"));
    assert_eq!(python.image_digest.as_deref(), Some("sha256:1"));
}

#[tokio::test]
async fn a_language_has_its_self_test_as_an_example() {
    let backend = Backend::start().await;
    let python = backend.get("/v1/languages/PY").await.json();
    assert_eq!(python["name"], "python");
    assert_eq!(python["file"], "main.py");
    assert_eq!(python["compiled"], false);
    let code = std::fs::read_to_string(support::languages().join("python/self_test.py")).unwrap();
    assert_eq!(python["example"]["code"], code);
    assert_eq!(python["example"]["args"][1], "two words");

    let unknown = backend.get("/v1/languages/cobol").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.failure().contains("`cobol`"));
}

#[tokio::test]
async fn the_start_choice_is_obeyed_and_reported() {
    let backend = Backend::start().await;
    let run = |start: serde_json::Value| serde_json::json!({ "language": "python", "code": "print x", "start": start });
    for (wanted, got) in [("fork", "fork"), ("cold", "cold")] {
        let answer = backend.post("/v1/executions", run(wanted.into())).await;
        assert_eq!(answer.json()["start"], got);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let kept = backend.get(&format!("/v1/executions/{id}")).await.json();
        assert_eq!(kept["start"], got);
    }
    let answer = backend.post("/v1/executions", run("warm".into())).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn without_forks_there_are_no_templates() {
    let backend = Backend::start().await;
    assert_eq!(backend.get("/v1/templates").await.json(), json!([]));

    let answer = backend
        .post("/v1/templates", json!({"language": "python"}))
        .await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    let answer = backend
        .post("/v1/templates", json!({"language": "cobol"}))
        .await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    assert!(answer.failure().contains("cobol"));

    let answer = backend
        .send("DELETE", "/v1/templates/..%2f..", &[], "")
        .await;
    assert_eq!(answer.status, 404, "{:?}", answer.body);
}

#[tokio::test]
async fn metrics_count_executions_by_start_and_cause() {
    let backend = Backend::start().await;
    execute(&backend, "print(1)").await;
    let answer = backend.get("/metrics").await;
    assert_eq!(
        answer.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let counted = text
        .lines()
        .find(|line| line.starts_with("cloude_executions_total{"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(counted.contains("language=\"python\""), "{counted}");
    assert!(counted.contains("start=\"cold\""), "{counted}");
    assert!(counted.ends_with(" 1"), "{counted}");
    assert!(
        text.contains("cloude_execution_seconds_count{start=\"cold\"} 1"),
        "{text}"
    );
    assert!(text.contains("cloude_queue_length 0"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}
