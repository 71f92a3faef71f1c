//! A fake backend: an HTTP server on a free port that plays a script.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, ErrorBody, NDJSON, StageName, StageResult, Stream};
use cloude_protocol::api::{
    Execution, ExecutionEvent, ExecutionRequest, LanguageInfo, RunRequest, RunResponse, StartKind,
    Status, StatusResponse, Timings,
};

/// The answer to `POST /v1/executions`.
#[derive(Clone)]
pub enum Script {
    /// These events, then the end of the response.
    Events(Vec<ExecutionEvent>),
    /// These events, then a response that never ends.
    Hang(Vec<ExecutionEvent>),
    /// A status, a header and a body.
    Answer(u16, Option<(&'static str, &'static str)>, String),
    /// This status and `Retry-After` as often as this, then an exit with 0.
    Busy(u16, &'static str, usize),
}

pub struct Shared {
    script: Script,
    pub executions: Mutex<Vec<ExecutionRequest>>,
    pub runs: Mutex<Vec<RunRequest>>,
    /// The ids of cancelled executions.
    pub cancelled: Mutex<Vec<String>>,
    /// The headers of each execution, and when it arrived.
    pub headers: Mutex<Vec<(HeaderMap, Instant)>>,
    /// The header `Authorization` of each execution.
    pub authorizations: Mutex<Vec<Option<String>>>,
    /// True once a client closed the connection of a [`Script::Hang`].
    pub abandoned: Mutex<bool>,
    /// True once the server has sent all events.
    pub sent: Mutex<bool>,
}

pub struct FakeBackend {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    socket: tempfile::TempDir,
    // Dropping it stops the server.
    _runtime: tokio::runtime::Runtime,
}

impl FakeBackend {
    pub fn new(script: Script) -> Self {
        Self::routed(script, Router::new())
    }

    /// With more routes.
    pub fn routed(script: Script, more: Router) -> Self {
        let shared = Arc::new(Shared {
            script,
            executions: Mutex::default(),
            runs: Mutex::default(),
            cancelled: Mutex::default(),
            headers: Mutex::default(),
            authorizations: Mutex::default(),
            abandoned: Mutex::new(false),
            sent: Mutex::new(false),
        });
        let app = Router::new()
            .route("/v1/languages", get(|| async { Json(languages()) }))
            .route("/v1/executions", post(executions))
            .route("/v1/executions/{id}", delete(cancel))
            .route("/run", post(run))
            .route("/status/{id}", get(status))
            .with_state(shared.clone())
            .merge(more);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let socket = tempfile::tempdir().unwrap();
        let path = socket.path().join("api.sock");
        let unix = {
            let _entered = runtime.enter();
            tokio::net::UnixListener::bind(path).unwrap()
        };
        runtime.spawn({
            let app = app.clone();
            async move { axum::serve(unix, app).await }
        });
        runtime.spawn(async move { axum::serve(listener, app).await });
        FakeBackend {
            address,
            shared,
            socket,
            _runtime: runtime,
        }
    }

    /// A backend whose programs print nothing and have this result.
    pub fn ending(execution: Execution) -> Self {
        Self::new(Script::Events(vec![ExecutionEvent::Result(Box::new(
            execution,
        ))]))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same backend on a Unix socket.
    pub fn unix_url(&self) -> String {
        format!("unix:{}", self.socket.path().join("api.sock").display())
    }

    /// `cloude` with this backend in its environment, and nothing on standard input.
    pub fn cloude(&self) -> Command {
        let mut command = cloude();
        command.env("CLOUDE_BACKEND", self.url());
        command
    }

    pub fn only_execution(&self) -> ExecutionRequest {
        let executions = self.shared.executions.lock().unwrap();
        assert_eq!(executions.len(), 1, "one request was expected");
        executions[0].clone()
    }
}

/// `cloude` without a backend, a terminal or anything on standard input.
pub fn cloude() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("cloude"));
    command
        .env_remove("CLOUDE_BACKEND")
        .env_remove("CLOUDE_API_KEY")
        .env_remove("CLOUDE_CA")
        .env_remove("CLOUDE_RETRY_FOR")
        // No configuration file of whoever runs the tests.
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .write_stdin("")
        .timeout(Duration::from_secs(300));
    command
}

async fn executions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(request): Json<ExecutionRequest>,
) -> Response {
    shared.executions.lock().unwrap().push(request);
    let authorization = headers.get("authorization");
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    shared.authorizations.lock().unwrap().push(authorization);
    let attempts = {
        let mut all = shared.headers.lock().unwrap();
        all.push((headers.clone(), Instant::now()));
        all.len()
    };
    let (events, hang) = match shared.script.clone() {
        Script::Busy(status, retry_after, times) if attempts <= times => {
            let body = r#"{"type":"about:blank","title":"x","status":429,"detail":"64 executions are queued"}"#;
            let status = StatusCode::from_u16(status).unwrap();
            return (status, [("retry-after", retry_after)], body).into_response();
        }
        _ if headers
            .get("prefer")
            .is_some_and(|it| it == "respond-async") =>
        {
            let summary = r#"{"id":"job-1","status":"pending","language":"python","created_ms":7}"#;
            return (StatusCode::ACCEPTED, summary).into_response();
        }
        Script::Busy(..) => (vec![result(exited(0))], false),
        Script::Answer(status, header, body) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            if let Some((name, value)) = header {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return response;
        }
        Script::Events(events) => (events, false),
        Script::Hang(events) => (events, true),
    };
    if headers["accept"] != NDJSON {
        return Json(last(events)).into_response();
    }
    let guard = Abandoned {
        shared,
        armed: hang,
    };
    let lines: Vec<Result<Bytes, Infallible>> = events
        .iter()
        .map(|event| {
            Ok(Bytes::from(format!(
                "{}\n",
                serde_json::to_string(event).unwrap()
            )))
        })
        .collect();
    let tail = futures_util::stream::once(async move {
        *guard.shared.sent.lock().unwrap() = true;
        if guard.armed {
            std::future::pending::<()>().await;
        }
        Ok(Bytes::new())
    });
    let stream = futures_util::StreamExt::chain(futures_util::stream::iter(lines), tail);
    ([("content-type", NDJSON)], Body::from_stream(stream)).into_response()
}

/// Dropped with the response body, also when the client disconnects.
struct Abandoned {
    shared: Arc<Shared>,
    armed: bool,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if self.armed {
            *self.shared.abandoned.lock().unwrap() = true;
        }
    }
}

fn last(events: Vec<ExecutionEvent>) -> Execution {
    match events.into_iter().last() {
        Some(ExecutionEvent::Result(execution)) => *execution,
        other => panic!("the script ends with {other:?}, not with a result"),
    }
}

/// A response's body that breaks off after these bytes.
pub fn breaks_after(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    let tail = futures_util::stream::once(async {
        // The server sends what it has when a body is not ready.
        tokio::task::yield_now().await;
        Err("the server is gone")
    });
    let head = futures_util::stream::once(async { Ok(bytes) });
    Body::from_stream(futures_util::StreamExt::chain(head, tail))
}

async fn run(State(shared): State<Arc<Shared>>, Json(request): Json<RunRequest>) -> Response {
    if request.code.is_empty() {
        return (
            StatusCode::BAD_REQUEST,
            Json(ErrorBody {
                error: "code is empty".to_owned(),
            }),
        )
            .into_response();
    }
    shared.runs.lock().unwrap().push(request);
    Json(RunResponse {
        id: "job-1".to_owned(),
    })
    .into_response()
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    shared.cancelled.lock().unwrap().push(id.clone());
    match shared.script.clone() {
        Script::Events(events) if id == "job-1" => Json(last(events)).into_response(),
        _ => {
            let error = format!("there is no execution `{id}`");
            (StatusCode::NOT_FOUND, Json(ErrorBody { error })).into_response()
        }
    }
}

async fn status(Path(id): Path<String>) -> Response {
    if id != "job-1" {
        return (
            StatusCode::NOT_FOUND,
            Json(ErrorBody {
                error: format!("no execution {id}"),
            }),
        )
            .into_response();
    }
    Json(StatusResponse {
        id,
        status: Status::Done,
        language: "python".to_owned(),
        exit_code: Some(3),
        stdout: "out\n".to_owned(),
        stderr: "err".to_owned(),
    })
    .into_response()
}

pub fn languages() -> Vec<LanguageInfo> {
    let language = |name: &str, aliases: &[&str], extensions: &[&str], image_ready| LanguageInfo {
        name: name.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        extensions: extensions
            .iter()
            .map(|&extension| extension.to_owned())
            .collect(),
        image_ready,
        version: image_ready.then(|| "Python 3.13.5".to_owned()),
        image_digest: image_ready.then(|| format!("sha256:{}", "0123456789abcdef".repeat(4))),
        image_age_s: image_ready.then_some(31 * 86_400),
    };
    vec![
        language("python", &["py", "python3"], &["py"], true),
        language("c", &[], &["c"], false),
    ]
}

pub fn output(stage: StageName, stream: Stream, bytes: &[u8]) -> ExecutionEvent {
    ExecutionEvent::Output {
        stage,
        stream,
        data: Data(bytes.to_vec()),
    }
}

pub fn stdout(bytes: &[u8]) -> ExecutionEvent {
    output(StageName::Run, Stream::Stdout, bytes)
}

pub fn stderr(bytes: &[u8]) -> ExecutionEvent {
    output(StageName::Run, Stream::Stderr, bytes)
}

pub fn result(execution: Execution) -> ExecutionEvent {
    ExecutionEvent::Result(Box::new(execution))
}

/// The result of a program that exited.
pub fn exited(code: i32) -> Execution {
    ended(Cause::Exit, Some(code), None)
}

/// The result of a program that ended with `cause`.
pub fn ended(cause: Cause, exit_code: Option<i32>, signal: Option<i32>) -> Execution {
    Execution {
        id: "job-1".to_owned(),
        language: "python".to_owned(),
        version: Some("Python 3.13.5".to_owned()),
        image_digest: Some("sha256:1".to_owned()),
        status: Status::Done,
        cause,
        exit_code,
        signal,
        stdout: Data::default(),
        stderr: Data::default(),
        compile: None,
        run: Some(stage(cause, exit_code, signal)),
        timings: Timings::default(),
        start: StartKind::Cold,
        memory_bytes: 512 << 20,
        ip: None,
        network: None,
        artifacts: Vec::new(),
        artifacts_dropped: 0,
        labels: Default::default(),
        created_ms: 0,
        error: None,
    }
}

pub fn stage(cause: Cause, exit_code: Option<i32>, signal: Option<i32>) -> StageResult {
    StageResult {
        cause,
        exit_code,
        signal,
        wall_time_us: 2_000_000,
        cpu_time_us: 1000,
        peak_memory_bytes: 4096,
        stdout_bytes: 0,
        stdout_dropped: 0,
        stderr_bytes: 0,
        stderr_dropped: 0,
        warm: false,
        message: None,
    }
}
