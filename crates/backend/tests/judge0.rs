//! The interface of Judge0 1.13.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloude_backend::config::{Auth, Config};
use cloude_protocol::keys::Scope;
use serde_json::{Value, json};
use support::{Answer, Backend, capacity};

const PYTHON: u32 = 71;
const C: u32 = 50;

fn program(language_id: u32, code: &str) -> Value {
    json!({"language_id": language_id, "source_code": code})
}

async fn with(change: impl FnOnce(&mut Config)) -> Backend {
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, change).await
}

/// The answer to a submission that waits.
async fn waited(backend: &Backend, body: Value) -> Value {
    let answer = backend.post("/submissions?wait=true&fields=*", body).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    answer.json()
}

async fn submit(backend: &Backend, body: Value) -> String {
    let answer = backend.post("/submissions", body).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let answer = answer.json();
    assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

/// Polls until the submission has a verdict.
async fn verdict(backend: &Backend, token: &str) -> Value {
    for _ in 0..30_000 {
        let path = format!("/submissions/{token}?fields=*");
        let submission = backend.get(&path).await.json();
        if submission["status"]["id"].as_u64().unwrap() > 2 {
            return submission;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{token} gets no verdict");
}

fn error(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_submission_is_polled_on_every_path() {
    let backend = Backend::start().await;
    for folder in ["/submissions", "/submissions/", "/judge0/submissions"] {
        let created = backend.post(folder, program(PYTHON, "print hi")).await;
        assert_eq!(created.status, 201, "{folder}");
        let token = created.json()["token"].as_str().unwrap().to_owned();
        verdict(&backend, &token).await;

        let path = format!("{}/{token}", folder.trim_end_matches('/'));
        let answer = backend.get(&path).await;

        let expected = json!({
            "token": token, "time": "0.001", "memory": 1024, "stdout": "hi", "stderr": null,
            "compile_output": null, "message": null, "status": {"id": 3, "description": "Accepted"},
        });
        assert_eq!((answer.status, answer.json()), (200, expected), "{folder}");
    }
}

#[tokio::test]
async fn a_submission_waits_only_if_asked() {
    let backend = Backend::start().await;
    let token = submit(&backend, program(PYTHON, "hold")).await;
    backend.alive(1).await;
    let running = backend.get(&format!("/submissions/{token}")).await.json();
    assert_eq!(
        running["status"],
        json!({"id": 2, "description": "Processing"})
    );
    assert_eq!(
        (&running["stdout"], &running["time"]),
        (&Value::Null, &Value::Null)
    );
    backend.world.go_on.notify_one();
    assert_eq!(verdict(&backend, &token).await["stdout"], "held\n");

    let waited = waited(&backend, program(PYTHON, "print x")).await;
    assert_eq!(waited["status"]["id"], 3);
    let again = verdict(&backend, waited["token"].as_str().unwrap()).await;
    assert_eq!(again, waited, "it can be read later");
}

#[tokio::test]
async fn every_verdict_of_a_program_is_given() {
    let backend = Backend::start().await;
    for (language, code, expected_output, status) in [
        (PYTHON, "print a", None, 3),
        (PYTHON, "print a", Some("a \n"), 3),
        (PYTHON, "print a", Some("b"), 4),
        (PYTHON, "forever", None, 5),
        (C, "uncompilable", Some("a"), 6),
        (PYTHON, "signal 11", None, 7),
        (PYTHON, "signal 25", None, 8),
        (PYTHON, "signal 8", None, 9),
        (PYTHON, "signal 6", None, 10),
        (PYTHON, "exit 3", None, 11),
        (PYTHON, "signal 15", None, 12),
        (PYTHON, "hang-up", None, 13),
    ] {
        let mut body = program(language, code);
        body["expected_output"] = json!(expected_output);
        let answer = waited(&backend, body).await;
        assert_eq!(answer["status"]["id"], status, "{code}: {answer}");
        assert_eq!(answer["status_id"], status, "{code}");
    }
    let failed = waited(&backend, program(C, "uncompilable")).await;
    assert_eq!(failed["compile_output"], "main.c:1: error\n");
    assert_eq!(
        (&failed["time"], &failed["exit_code"]),
        (&Value::Null, &Value::Null)
    );
    let exited = waited(&backend, program(PYTHON, "exit 3")).await;
    assert_eq!(exited["message"], "Exited with error status 3");
    assert_eq!(
        (&exited["exit_code"], &exited["stderr"]),
        (&json!(3), &json!("bye\n"))
    );
    let killed = waited(&backend, program(PYTHON, "signal 11")).await;
    assert_eq!(
        (&killed["exit_code"], &killed["exit_signal"]),
        (&json!(0), &json!(11))
    );
    let compiled = waited(&backend, program(C, "compiled x")).await;
    assert_eq!(compiled["compile_output"], "main.c:1: warning\n");
    let absent = waited(&backend, program(60, "print x")).await;
    assert_eq!(absent["status"]["id"], 13);
    assert!(absent["message"].as_str().unwrap().contains("no image"));
}

#[tokio::test]
async fn the_agent_gets_every_field() {
    let backend = Backend::start().await;
    let body = json!({
        "language_id": 54, "source_code": "print x", "stdin": "in", "compiler_options": "-O3 -lm",
        "command_line_arguments": "'a b' c", "cpu_time_limit": 2, "cpu_extra_time": 1.5, "wall_time_limit": 4,
        "memory_limit": 1100 << 10, "stack_limit": 1000, "max_processes_and_or_threads": 7, "max_file_size": 9,
    });

    let answer = waited(&backend, body).await;

    assert_eq!(
        answer["language"],
        json!({"id": 54, "name": "C++ (G++ 1.2.3)"})
    );
    let asked = backend.world.asked.lock().unwrap().take().unwrap();
    let compile = asked.compile.unwrap().argv;
    assert!(
        compile.ends_with(&["-O3".into(), "-lm".into()]),
        "{compile:?}"
    );
    assert_eq!(asked.run.argv[1..], ["a b", "c"]);
    assert_eq!(asked.stdin.to_text(), "in");
    assert_eq!(
        (asked.run.wall_time_ms, asked.run.output_bytes),
        (4000, 9 << 10)
    );
    assert!(asked.run.kill_at_output_limit);
    let limits = asked.run.limits;
    assert_eq!(
        (limits.cpu_time_ms, limits.processes),
        (Some(3500), Some(7))
    );
    assert_eq!(
        (limits.stack_bytes, limits.file_bytes),
        (Some(1000 << 10), Some(9 << 10))
    );
    let specs = backend.world.specs.lock().unwrap();
    assert_eq!(specs[0].memory_mib, 1100_u64.next_multiple_of(64));
}

#[tokio::test]
async fn base64_goes_both_ways() {
    let backend = Backend::start().await;
    let encode = |text: &str| STANDARD.encode(text);
    let body = json!({
        "language_id": PYTHON, "source_code": encode("print é"), "stdin": encode("in"),
        "expected_output": encode("é"),
    });
    let path =
        "/submissions?base64_encoded=true&wait=true&fields=status_id,stdout,stdin,source_code";

    let answer = backend.post(path, body).await.json();

    let line = |text: &str| encode(text) + "\n";
    let expected = json!({
        "status_id": 3, "stdout": line("é"), "stdin": line("in"), "source_code": line("print é"),
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn bytes_without_base64_are_an_error_with_the_token() {
    let backend = Backend::start().await;
    let body = program(PYTHON, "fill 1 255");
    let answer = backend.post("/submissions?wait=true", body).await;
    assert_eq!(answer.status, 201);
    assert!(error(&answer).contains("use base64_encoded=true"));
    let token = answer.json()["token"].as_str().unwrap().to_owned();

    let text = backend.get(&format!("/submissions/{token}")).await;
    let status = backend
        .get(&format!("/submissions/{token}?fields=status"))
        .await;
    let encoded = format!("/submissions/{token}?base64_encoded=true&fields=stdout");
    let encoded = backend.get(&encoded).await;

    assert_eq!(
        (text.status, status.status, encoded.status),
        (400, 200, 200)
    );
    assert!(error(&text).starts_with("some attributes for this submission"));
    let stdout = encoded.json()["stdout"].as_str().unwrap().replace('\n', "");
    assert_eq!(STANDARD.decode(stdout).unwrap(), vec![255; 1 << 20]);
}

#[tokio::test]
async fn merged_output_keeps_its_order() {
    let backend = Backend::start().await;
    backend.world.go_on.notify_one();
    let mut body = program(PYTHON, "steps 4");
    body["redirect_stderr_to_stdout"] = json!(true);
    let answer = waited(&backend, body).await;
    assert_eq!(answer["stdout"], "step 0\nstep 1\nstep 2\nstep 3\nend\n");
    assert_eq!(answer["stderr"], Value::Null);
}

#[tokio::test]
async fn invalid_submissions_are_422_with_messages_by_field() {
    let backend = with(|config| config.network.enabled = false).await;
    let with = |name: &str, value: Value| {
        let mut body = program(PYTHON, "print x");
        body[name] = value;
        body
    };
    for (body, field, message) in [
        (json!({"source_code": "x"}), "language_id", "can't be blank"),
        (json!({"language_id": 71}), "source_code", "can't be blank"),
        (
            program(89, "x"),
            "language_id",
            "language with id 89 doesn't exist",
        ),
        (
            program(34, "x"),
            "language_id",
            "language with id 34 is archived and cannot be used anymore",
        ),
        (
            with("cpu_time_limit", json!(9000)),
            "cpu_time_limit",
            "must be less than or equal to 600",
        ),
        (
            with("compiler_options", json!("-O3")),
            "compiler_options",
            "only allowed for compiled",
        ),
        (
            with("enable_network", json!(true)),
            "enable_network",
            "enabling network is not allowed",
        ),
        (
            with("callback_url", json!("https://a.example")),
            "callback_url",
            "callbacks.secret",
        ),
        (
            with("number_of_runs", json!(3)),
            "number_of_runs",
            "must be less than or equal to 1",
        ),
        (
            with("command_line_arguments", json!("\"")),
            "command_line_arguments",
            "quote",
        ),
        (
            with("additional_files", json!("eA==")),
            "additional_files",
            "is not a zip archive",
        ),
    ] {
        let answer = backend.post("/submissions", body).await;
        assert_eq!(answer.status, 422, "{field}: {:?}", answer.body);
        let body = answer.json();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        let text = body[field][0].as_str().unwrap();
        assert!(text.contains(message), "{text}");
    }
}

#[tokio::test]
async fn other_errors_have_one_message() {
    let backend = Backend::start().await;
    let fields = backend.get("/submissions/x?fields=stdout,cow,moo").await;
    assert_eq!(
        (fields.status, error(&fields)),
        (400, "invalid fields: [cow, moo]".into())
    );
    for path in [
        "/submissions/x",
        "/languages/9999",
        "/languages/x",
        "/judge0/cow",
    ] {
        let answer = backend.get(path).await;
        assert_eq!(
            (answer.status, error(&answer).is_empty()),
            (404, false),
            "{path}"
        );
    }
    let large = program(PYTHON, &"x".repeat(100_000));
    assert_eq!(backend.post("/submissions", large).await.status, 413);
    let text = [("content-type", "text/plain")];
    let body = program(PYTHON, "print x").to_string();
    let untyped = backend
        .send("POST", "/submissions", &text, body.clone())
        .await;
    assert_eq!((untyped.status, error(&untyped).is_empty()), (415, false));
    let page = [
        ("content-type", "application/json"),
        ("origin", "http://evil.example"),
    ];
    let foreign = backend.send("POST", "/submissions", &page, body).await;
    assert_eq!((foreign.status, error(&foreign).is_empty()), (403, false));
    backend.service.drain();
    let stopping = backend
        .post("/submissions", program(PYTHON, "print x"))
        .await;
    assert_eq!(stopping.status, 503);
    assert!(stopping.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_full_queue_is_503() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(1, 1), state, |_| {}).await;
    submit(&backend, program(PYTHON, "hold")).await;
    backend.alive(1).await;
    submit(&backend, program(PYTHON, "hold")).await;

    let one = backend
        .post("/submissions", program(PYTHON, "print x"))
        .await;
    let batch = json!({"submissions": [program(PYTHON, "print x")]});
    let batch = backend.post("/submissions/batch", batch).await;

    for refused in [one, batch] {
        assert_eq!(
            (refused.status, error(&refused)),
            (503, "queue is full".into())
        );
        assert!(refused.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_batch_has_a_token_or_errors_for_each() {
    let backend = Backend::start().await;
    let batch = json!({"submissions": [
        program(PYTHON, "print 0"), program(89, "x"), program(PYTHON, "print 2"),
        {"language_id": PYTHON, "source_code": "print 3", "compiler_options": "-O3"}, "x",
    ]});
    let created = backend.post("/submissions/batch", batch).await;
    assert_eq!(created.status, 201);
    let created = created.json();
    assert!(
        created[1]["language_id"][0]
            .as_str()
            .unwrap()
            .contains("89")
    );
    assert!(created[3].get("compiler_options").is_some() && created[4].get("base").is_some());
    let [first, third] = [0, 2].map(|at: usize| created[at]["token"].as_str().unwrap());
    verdict(&backend, first).await;
    verdict(&backend, third).await;

    let path = format!("/submissions/batch?tokens={third},unknown,{first}&fields=stdout");
    let read = backend.get(&path).await.json();

    let expected = json!({"submissions": [{"stdout": "2"}, null, {"stdout": "0"}]});
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_batch_without_a_valid_submission_is_refused() {
    let backend = Backend::start().await;
    let batch = |count: usize, id| json!({"submissions": vec![program(id, "print x"); count]});
    for (count, status) in [(0, 400), (21, 400), (1, 422)] {
        let answer = backend.post("/submissions/batch", batch(count, 89)).await;
        assert_eq!(answer.status, status, "{count}");
    }
    let tokens = vec!["x"; 21].join(",");
    for path in [
        format!("/submissions/batch?tokens={tokens}"),
        "/submissions/batch".into(),
    ] {
        let answer = backend.get(&path).await;
        assert_eq!(
            (answer.status, error(&answer).contains("batch")),
            (400, true)
        );
    }
}

#[tokio::test]
async fn submissions_are_listed_by_pages() {
    let backend = Backend::start().await;
    let mut tokens = Vec::new();
    for number in 0..5 {
        let answer = waited(&backend, program(PYTHON, &format!("print {number}"))).await;
        tokens.push(answer["token"].as_str().unwrap().to_owned());
    }
    let other = json!({"language": "python", "code": "print x"});
    backend.post("/v1/executions", other).await;

    let list = backend
        .get("/submissions?page=2&per_page=2&fields=token")
        .await
        .json();

    assert_eq!(list["submissions"].as_array().unwrap().len(), 2);
    let meta = json!({
        "current_page": 2, "next_page": 3, "prev_page": 1, "total_pages": 3, "total_count": 5,
    });
    assert_eq!(list["meta"], meta);
    for query in ["page=0", "page=-1", "per_page=0", "per_page=201"] {
        let answer = backend.get(&format!("/submissions?{query}")).await;
        assert_eq!(
            (answer.status, error(&answer).starts_with("invalid p")),
            (400, true)
        );
    }
}

#[tokio::test]
async fn an_answer_with_too_much_output_is_refused() {
    let backend = with(|config| config.limits.result_bytes_in_flight = 12 << 20).await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let token = submit(&backend, program(PYTHON, "fill 1 120")).await;
        backend.finished(&token).await;
        tokens.push(token);
    }
    for count in [3, 4] {
        let tokens = tokens[..count].join(",");
        let path = format!("/submissions/batch?tokens={tokens}&fields=stdout");
        let answer = backend.get(&path).await;
        assert_eq!(answer.status, if count == 3 { 200 } else { 400 });
    }
    let list = backend.get("/submissions?fields=stdout").await;
    assert_eq!(
        (list.status, error(&list).contains("fewer submissions")),
        (400, true)
    );
    assert_eq!(backend.get("/submissions?fields=token").await.status, 200);
}

#[tokio::test]
async fn a_finished_submission_can_be_deleted() {
    let backend = Backend::start().await;
    let token = submit(&backend, program(PYTHON, "hold")).await;
    backend.alive(1).await;
    let path = format!("/submissions/{token}?fields=stdout,status_id");
    let delete = || backend.send("DELETE", &path, &[], "");
    let early = delete().await;
    assert_eq!((early.status, error(&early).is_empty()), (400, false));
    backend.world.go_on.notify_one();
    verdict(&backend, &token).await;

    let deleted = delete().await;

    let expected = json!({"stdout": STANDARD.encode("held\n") + "\n", "status_id": 3});
    assert_eq!((deleted.status, deleted.json()), (200, expected));
    for path in [path.clone(), format!("/v1/executions/{token}")] {
        assert_eq!(backend.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(delete().await.status, 404);
}

#[tokio::test]
async fn an_execution_of_v1_is_no_submission() {
    let backend = Backend::start().await;
    let body = json!({"language": "python", "code": "print x"});
    let execution = backend.post("/v1/executions", body).await.json();
    let id = execution["id"].as_str().unwrap();
    assert_eq!(backend.get(&format!("/submissions/{id}")).await.status, 404);
    let token = submit(&backend, program(PYTHON, "print x")).await;
    assert_eq!(
        backend.finished(&token).await["stdout"],
        "x",
        "but the reverse"
    );
}

#[tokio::test]
async fn a_submission_belongs_to_its_key() {
    let backend = with(|config| config.api.auth = Auth::Required).await;
    let (owner, _) = backend.key(&[Scope::Run, Scope::Read]).await;
    let (other, _) = backend.key(&[Scope::Run, Scope::Read]).await;
    let body = program(PYTHON, "print x").to_string();
    let path = "/submissions?wait=true";
    let created = backend.send_as(&owner, "POST", path, &body).await.json();
    let token = created["token"].as_str().unwrap();

    for (key, status) in [(&other, 404), (&owner, 200)] {
        let path = format!("/submissions/{token}");
        assert_eq!(backend.send_as(key, "GET", &path, "").await.status, status);
        let batch = format!("/submissions/batch?tokens={token}");
        let batch = backend.send_as(key, "GET", &batch, "").await.json();
        assert_eq!(batch["submissions"][0].is_null(), status == 404);
        let list = backend.send_as(key, "GET", "/submissions", "").await.json();
        assert_eq!(list["meta"]["total_count"], u8::from(status == 200));
        assert_eq!(
            backend.send_as(key, "DELETE", &path, "").await.status,
            status
        );
    }
}

#[tokio::test]
async fn a_key_may_be_an_x_auth_token() {
    let backend = with(|config| config.api.auth = Auth::Required).await;
    let (key, _) = backend.key(&[Scope::Run, Scope::Read]).await;
    let (reader, _) = backend.key(&[Scope::Read]).await;
    let body = program(PYTHON, "print x").to_string();
    let send = |name: &'static str, key: String, path: &'static str| {
        let (backend, body) = (&backend, body.clone());
        async move {
            let headers = [(name, key.as_str()), ("content-type", "application/json")];
            backend.send("POST", path, &headers, body).await.status
        }
    };
    for name in ["x-auth-token", "X-Auth-User"] {
        assert_eq!(send(name, key.clone(), "/submissions").await, 201);
        assert_eq!(send(name, reader.clone(), "/submissions").await, 403);
        assert_eq!(send(name, "wrong".into(), "/submissions").await, 401);
        assert_eq!(send(name, key.clone(), "/authenticate").await, 200);
        assert_eq!(send(name, key.clone(), "/authorize").await, 200);
        assert_eq!(send(name, reader.clone(), "/authorize").await, 403);
        assert_eq!(
            send(name, key.clone(), "/run").await,
            401,
            "only on these paths"
        );
    }
    assert_eq!(backend.get("/languages").await.status, 401);
}

#[tokio::test]
async fn a_submission_survives_a_crash() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let first = Backend::with(capacity(2, 16), Arc::clone(&state), |_| {}).await;
    let mut body = program(PYTHON, "hold");
    body["expected_output"] = json!("other");
    let token = submit(&first, body).await;
    first.alive(1).await;

    // For the next server, one that was not stopped looks like one that was killed.
    let next = Backend::with(capacity(2, 16), state, |_| {}).await;
    assert_eq!(next.service.recover().await.unwrap(), 1);
    next.alive(1).await;
    next.world.go_on.notify_one();

    let answer = verdict(&next, &token).await;
    assert_eq!(
        (&answer["stdout"], &answer["status_id"]),
        (&json!("held\n"), &json!(4))
    );
    assert_eq!(
        (&answer["source_code"], &answer["language_id"]),
        (&json!("hold"), &json!(PYTHON))
    );
}

#[tokio::test]
async fn languages_have_our_versions_and_the_ids_of_judge0() {
    let backend = Backend::start().await;
    let (active, all) = (
        backend.get("/languages").await.json(),
        backend.get("/languages/all").await.json(),
    );
    let of = |list: &Value, id: u32| {
        let list = list.as_array().unwrap();
        list.iter().find(|item| item["id"] == id).cloned()
    };
    assert_eq!(
        of(&active, 71),
        Some(json!({"id": 71, "name": "Python (1.2.3)"}))
    );
    assert_eq!(of(&active, 60), None, "Go has no image");
    let go = json!({"id": 60, "name": "Go (1.24)", "is_archived": true});
    assert_eq!(of(&all, 60), Some(go));
    assert_eq!(of(&all, 63).unwrap()["is_archived"], false);
    let c = backend.get("/languages/50").await.json();
    assert_eq!(
        (&c["name"], &c["source_file"]),
        (&json!("C (GCC 1.2.3)"), &json!("main.c"))
    );
    assert!(c["compile_cmd"].as_str().unwrap().starts_with("gcc "));
    assert_eq!(
        (&c["run_cmd"], &c["is_archived"]),
        (&json!("./main"), &json!(false))
    );
}

#[tokio::test]
async fn the_server_describes_itself_as_judge0() {
    let backend = Backend::start().await;
    let statuses = backend.get("/statuses").await.json();
    let ids: Vec<_> = statuses
        .as_array()
        .unwrap()
        .iter()
        .map(|status| &status["id"])
        .collect();
    assert_eq!(ids, (1..=14).collect::<Vec<u64>>());
    assert_eq!(statuses[2]["description"], "Accepted");
    assert_eq!(backend.get("/about").await.json()["version"], "1.13.1");
    assert_eq!(backend.get("/version").await.body, "1.13.1");
    assert!(backend.get("/license").await.body.len() > 1000);
    let config = backend.get("/config_info").await.json();
    assert_eq!(
        (
            &config["max_submission_batch_size"],
            &config["max_queue_size"]
        ),
        (&json!(20), &json!(16))
    );
    assert_eq!(
        (&config["enable_callbacks"], &config["max_number_of_runs"]),
        (&json!(false), &json!(1))
    );
    let workers = backend.get("/workers").await.json();
    assert_eq!(
        (&workers[0]["available"], &workers[0]["working"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(backend.get("/system_info").await.json()["CPU(s)"], "64");
    assert_eq!(backend.get("/isolate").await.status, 404);
}

/// Installs the client from PyPI, and shows its calls.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyPI; run it with `--run-ignored all`"]
async fn the_unmodified_client_works() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(8, 64), state, |_| {}).await;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/tests/judge0-client"
    );
    let mut command = tokio::process::Command::new(script);
    let status = command.args([&backend.url, "fake"]).status().await.unwrap();
    assert!(status.success());
}
