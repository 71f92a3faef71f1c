//! The operations of the API. Each function stands for one: its attribute describes it, and it is never called. The
//! handlers are those of [`super::super::router`], and a test compares the two.
#![allow(dead_code, reason = "the attributes are what counts")]

use cloude_protocol::api::{
    Artifact, AttachMessage, Batch, BatchRequest, Execution, ExecutionEvent, ExecutionList,
    ExecutionRequest, ExecutionSummary, Installation, LanguageDetails, LanguageInfo, Problem,
    Readiness, Status, TemplateInfo, TemplateRequest,
};
use cloude_protocol::keys::{KeyInfo, KeyRequest, NewKey, Usage};
use utoipa::{IntoParams, IntoResponses};

/// The answer to every request that is refused.
#[derive(IntoResponses)]
#[response(
    status = "default",
    description = "The request is refused",
    content_type = "application/problem+json"
)]
struct Refused(Problem);

/// The answer for the id of no execution.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "No execution has the id",
    content_type = "application/problem+json"
)]
struct NoExecution(Problem);

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
struct ExecutionId {
    /// The execution's id
    id: String,
}

/// Run a program
///
/// Waits for the end and answers the result. A closed connection cancels the execution. With `Prefer: respond-async` the
/// answer comes at once, and the execution is durable: it survives a crash of the server.
#[utoipa::path(
    post,
    path = "/v1/executions",
    tag = "executions",
    request_body = ExecutionRequest,
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer 202 at once"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters: the same key with the same body is the same execution", min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    responses(
        (status = 200, description = "The result, whatever the program did; or its events", content(
            (Execution = "application/json"),
            (ExecutionEvent = "application/x-ndjson"),
            (String = "text/event-stream"),
        )),
        (status = 202, description = "Accepted", body = ExecutionSummary, headers(
            ("Location" = String, description = "The execution"),
        )),
        (status = 422, description = "The idempotency key was used with another body", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn create_execution() {}

/// List executions
///
/// The newest first, those of the caller's key; all for `admin`.
#[utoipa::path(
    get,
    path = "/v1/executions",
    tag = "executions",
    params(
        ("status" = Option<Status>, Query, description = "Executions of this status"),
        ("language" = Option<String>, Query, description = "A language's name"),
        ("label" = Option<String>, Query, description = "`NAME:VALUE` of the request's labels", pattern = "^[^:]+:"),
        ("limit" = Option<u32>, Query, description = "Executions on a page", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before", pattern = "^[0-9]{1,15}-"),
    ),
    responses(
        (status = 200, description = "A page", body = ExecutionList),
        Refused,
    ),
)]
fn list_executions() {}

/// The result of an execution
#[utoipa::path(
    get,
    path = "/v1/executions/{id}",
    tag = "executions",
    params(
        ExecutionId,
        ("wait" = Option<String>, Query, description = "Wait for the end, at most so long", pattern = "^([1-9]|[1-5][0-9]|60)s$"),
    ),
    responses(
        (status = 200, description = "It has ended", body = Execution),
        (status = 202, description = "It has not ended", body = ExecutionSummary),
        (status = 404, description = "No execution has the id, or its result was removed", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn read_execution() {}

/// Cancel an execution
///
/// Kills its VM. Has no effect on one that has ended.
#[utoipa::path(
    delete,
    path = "/v1/executions/{id}",
    tag = "executions",
    params(ExecutionId),
    responses(
        (status = 200, description = "Its result", body = Execution),
        NoExecution,
        Refused,
    ),
)]
fn cancel_execution() {}

/// The events of an execution
///
/// From the start, or from after `Last-Event-ID`. Any number of readers, at any time.
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/events",
    tag = "executions",
    params(
        ExecutionId,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was read"),
    ),
    responses(
        (status = 200, description = "Server-sent events, whose data are `ExecutionEvent`s; or one of these on each line", content(
            (String = "text/event-stream"),
            (ExecutionEvent = "application/x-ndjson"),
        )),
        NoExecution,
        Refused,
    ),
)]
fn read_events() {}

/// Attach to an execution
///
/// A WebSocket. The server sends the events from the start, an `ExecutionEvent` as JSON in each text message, and closes the
/// connection after the result. If the execution is `interactive`, the client sends `AttachMessage`s as JSON in text messages,
/// and bytes for standard input in binary messages. Any number of clients, at any time.
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/attach",
    tag = "executions",
    params(ExecutionId),
    responses(
        (status = 101, description = "The WebSocket: the server's messages, and the client's", content(
            (ExecutionEvent = "application/json"),
            (AttachMessage = "application/vnd.cloude.input+json"),
        )),
        NoExecution,
        Refused,
    ),
)]
fn attach() {}

/// Standard output
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/stdout",
    tag = "executions",
    params(
        ExecutionId,
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`"),
    ),
    responses(
        (status = 200, description = "The kept bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The bytes of the range", body = Vec<u8>, content_type = "application/octet-stream"),
        NoExecution,
        Refused,
    ),
)]
fn read_stdout() {}

/// Standard error
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/stderr",
    tag = "executions",
    params(
        ExecutionId,
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`"),
    ),
    responses(
        (status = 200, description = "The kept bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The bytes of the range", body = Vec<u8>, content_type = "application/octet-stream"),
        NoExecution,
        Refused,
    ),
)]
fn read_stderr() {}

/// The files that the program left
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/artifacts",
    tag = "executions",
    params(ExecutionId),
    responses(
        (status = 200, description = "Paths and sizes", body = Vec<Artifact>),
        NoExecution,
        Refused,
    ),
)]
fn list_artifacts() {}

/// A file that the program left
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/artifacts/{path}",
    tag = "executions",
    params(
        ExecutionId,
        ("path" = String, Path, description = "The file's path, which may have slashes"),
    ),
    responses(
        (status = 200, description = "Its content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No execution has the id, or it has no such file", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn read_artifact() {}

/// Run a program once for each input
///
/// Each has a VM of its own. The executions are durable: all are accepted, or none.
#[utoipa::path(
    post,
    path = "/v1/batches",
    tag = "executions",
    request_body = BatchRequest,
    responses(
        (status = 202, description = "Accepted", body = Batch, headers(
            ("Location" = String, description = "The batch"),
        )),
        Refused,
    ),
)]
fn create_batch() {}

/// A batch and its executions
#[utoipa::path(
    get,
    path = "/v1/batches/{id}",
    tag = "executions",
    params(("id" = String, Path, description = "The batch's id")),
    responses(
        (status = 200, description = "The batch", body = Batch),
        (status = 404, description = "No batch has the id", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn read_batch() {}

/// The languages, with their versions
#[utoipa::path(
    get,
    path = "/v1/languages",
    tag = "server",
    responses(
        (status = 200, description = "All languages", body = Vec<LanguageInfo>),
        Refused,
    ),
)]
fn list_languages() {}

/// A language, with a program to begin with
#[utoipa::path(
    get,
    path = "/v1/languages/{name}",
    tag = "server",
    params(("name" = String, Path, description = "Its name or an alias")),
    responses(
        (status = 200, description = "The language", body = LanguageDetails),
        (status = 404, description = "No language has the name", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn read_language() {}

/// Whether the server is up
#[utoipa::path(
    get,
    path = "/v1/health",
    tag = "server",
    security(()),
    responses(
        (status = 200, description = "It accepts executions", body = serde_json::Value),
        (status = 503, description = "It stops, or cannot write its store", body = serde_json::Value),
    ),
)]
fn read_health() {}

/// Whether the server can run programs, part by part
#[utoipa::path(
    get,
    path = "/v1/ready",
    tag = "server",
    security(()),
    responses(
        (status = 200, description = "All parts are ready", body = Readiness),
        (status = 503, description = "A part is not ready", body = Readiness),
    ),
)]
fn read_ready() {}

/// Executions, time and memory that the caller has used
#[utoipa::path(
    get,
    path = "/v1/usage",
    tag = "server",
    responses(
        (status = 200, description = "Of the caller's key; of each key for `admin`", body = Vec<Usage>),
        Refused,
    ),
)]
fn read_usage() {}

/// Paths and isolation of the server, for clients on the same machine
#[utoipa::path(
    get,
    path = "/v1/installation",
    tag = "server",
    responses(
        (status = 200, description = "The installation", body = Installation),
        Refused,
    ),
)]
fn read_installation() {}

/// The templates that were used since the start
#[utoipa::path(
    get,
    path = "/v1/templates",
    tag = "templates",
    responses(
        (status = 200, description = "The templates", body = Vec<TemplateInfo>),
        Refused,
    ),
)]
fn list_templates() {}

/// Build the template of a language
///
/// Answers when the template is ready.
#[utoipa::path(
    post,
    path = "/v1/templates",
    tag = "templates",
    request_body = TemplateRequest,
    responses(
        (status = 200, description = "It was ready, or another request built it", body = TemplateInfo),
        (status = 201, description = "It was built", body = TemplateInfo),
        (status = "default", description = "The request is refused, or the build failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
fn build_template() {}

/// Remove a template
#[utoipa::path(
    delete,
    path = "/v1/templates/{id}",
    tag = "templates",
    params(("id" = String, Path, description = "The template's id")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "No template has the id", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn remove_template() {}

/// All API keys, without their secrets
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    responses(
        (status = 200, description = "The keys", body = Vec<KeyInfo>),
        Refused,
    ),
)]
fn list_keys() {}

/// Create an API key
///
/// No other response has the key.
#[utoipa::path(
    post,
    path = "/v1/keys",
    tag = "keys",
    request_body = KeyRequest,
    responses(
        (status = 201, description = "The key", body = NewKey),
        Refused,
    ),
)]
fn create_key() {}

/// Revoke an API key
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    params(("id" = String, Path, description = "The key's id")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No key has the id", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
)]
fn revoke_key() {}
