//! The backend's address, the API key, and the commands of keys.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use cloude_protocol::keys::{KeyInfo, KeyRequest, NewKey, Scope};
use common::{FakeBackend, Script, cloude, exited};

const RUN: [&str; 5] = ["run", "-l", "python", "-c", "x"];
const KEY: &str = "cloude_3f0a9c11d2e4_00";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_backend_may_be_named_before_the_command() {
    let backend = FakeBackend::ending(exited(7));
    for arguments in [
        ["--backend", &backend.url()]
            .iter()
            .chain(&RUN)
            .copied()
            .collect::<Vec<_>>(),
        RUN.iter()
            .chain(&["--backend", &backend.url()])
            .copied()
            .collect(),
    ] {
        let mut command = cloude();
        // The option counts, not the variable.
        command
            .env("CLOUDE_BACKEND", "http://127.0.0.1:1")
            .args(&arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    }
}

#[test]
fn a_backend_on_a_unix_socket_runs_programs() {
    let backend = FakeBackend::ending(exited(7));
    for through in ["option", "variable"] {
        let mut command = cloude();
        match through {
            "option" => command.args(["--backend", &backend.unix_url()]),
            _ => command.env("CLOUDE_BACKEND", backend.unix_url()),
        };
        // A proxy is no way to a Unix socket.
        command.env("HTTP_PROXY", "http://127.0.0.1:1");
        let output = command.args(RUN).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    }
}

#[test]
fn a_missing_unix_socket_is_named() {
    let output = cloude()
        .args(["--backend", "unix:/nowhere/api.sock", "languages"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = text(&output.stderr);
    assert!(
        error.contains("cannot connect to the backend at unix:/nowhere/api.sock"),
        "{error}"
    );
}

#[test]
fn the_key_is_taken_from_the_variable_or_the_file() {
    let backend = FakeBackend::ending(exited(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "cloude_aaaaaaaaaaaa_11\n").unwrap();

    backend.cloude().args(RUN).assert().success();
    backend
        .cloude()
        .env("CLOUDE_API_KEY", KEY)
        .args(RUN)
        .assert()
        .success();
    let mut both = backend.cloude();
    both.env("CLOUDE_API_KEY", KEY).arg("--key-file").arg(&file);
    both.args(RUN).assert().success();

    let sent = backend.shared.authorizations.lock().unwrap();
    let bearer = |key: &str| Some(format!("Bearer {key}"));
    assert_eq!(*sent, [None, bearer(KEY), bearer("cloude_aaaaaaaaaaaa_11")]);
}

#[test]
fn a_text_that_is_no_key_is_refused_and_not_shown() {
    let backend = FakeBackend::ending(exited(0));
    for wrong in ["hunter2", "cloude_a b", "cloude_a\nb"] {
        let output = backend
            .cloude()
            .env("CLOUDE_API_KEY", wrong)
            .args(RUN)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        let error = text(&output.stderr);
        assert!(
            error.contains("CLOUDE_API_KEY") && !error.contains(wrong),
            "{error}"
        );
    }
    assert!(backend.shared.executions.lock().unwrap().is_empty());
}

#[test]
fn a_refused_key_is_an_error_that_says_where_to_put_one() {
    let refusal = |status, error: &str| {
        FakeBackend::new(Script::Answer(
            status,
            None,
            format!(r#"{{"error":"{error}"}}"#),
        ))
    };
    let backend = refusal(401, "this server requires an API key");
    let output = backend.cloude().args(RUN).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("--key-file"),
        "{}",
        text(&output.stderr)
    );
    let output = backend
        .cloude()
        .env("CLOUDE_API_KEY", KEY)
        .args(RUN)
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("shows where the key comes from"),
        "{}",
        text(&output.stderr)
    );

    let backend = refusal(403, "the API key `a` lacks the scope `run`");
    let output = backend.cloude().args(RUN).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("lacks the scope `run`"));
}

#[test]
fn a_secret_comes_from_the_environment_or_the_option() {
    let backend = FakeBackend::ending(exited(0));
    let run = |secret: &str| {
        let mut command = backend.cloude();
        command
            .env("TOKEN", "hunter2")
            .args(["run", "--secret", secret]);
        command.args(&RUN[1..]).output().unwrap()
    };

    let output = run("NO_SUCH");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("export it"));
    assert!(run("TOKEN").status.success());
    assert!(run("TOKEN=x1y2=").status.success());
    let requests = backend.shared.executions.lock().unwrap();
    let secrets = requests.iter().map(|it| it.secrets["TOKEN"].0.as_str());
    assert_eq!(secrets.collect::<Vec<_>>(), ["hunter2", "x1y2="]);
}

fn info() -> KeyInfo {
    KeyInfo {
        id: "3f0a9c11d2e4".into(),
        name: "ci".into(),
        scopes: vec![Scope::Run],
        created_ms: 0,
        expires_ms: None,
        revoked_ms: None,
    }
}

async fn create(Json(request): Json<KeyRequest>) -> (StatusCode, Json<NewKey>) {
    assert_eq!(request.name, "ci");
    assert_eq!(request.scopes, [Scope::Run]);
    assert_eq!(request.expires_s, Some(30 * 86_400));
    let key = NewKey {
        key: KEY.into(),
        info: info(),
    };
    (StatusCode::CREATED, Json(key))
}

async fn revoke(Path(id): Path<String>) -> StatusCode {
    assert_eq!(id, "3f0a9c11d2e4");
    StatusCode::NO_CONTENT
}

fn with_keys() -> FakeBackend {
    let routes = Router::new()
        .route("/v1/keys", get(|| async { Json([info()]) }).post(create))
        .route("/v1/keys/{id}", delete(revoke));
    FakeBackend::routed(Script::Events(Vec::new()), routes)
}

#[test]
fn key_create_prints_the_key_alone() {
    let arguments = [
        "key",
        "create",
        "--name",
        "ci",
        "--scope",
        "run",
        "--expires",
        "30d",
    ];
    let output = with_keys().cloude().args(arguments).output().unwrap();
    assert_eq!(
        text(&output.stdout),
        format!("{KEY}\n"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn key_ls_and_revoke_use_the_id() {
    let backend = with_keys();
    let output = backend.cloude().args(["key", "ls"]).output().unwrap();
    let table = text(&output.stdout);
    assert!(
        table.contains("3f0a9c11d2e4  ci") && table.contains("valid"),
        "{table}"
    );

    let output = backend
        .cloude()
        .args(["key", "revoke", "3f0a9c11d2e4"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "3f0a9c11d2e4\n");

    let output = backend
        .cloude()
        .args(["key", "revoke", KEY])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "the whole key is no id");
}
