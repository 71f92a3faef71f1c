//! Requests that fail before they reach the jobs.

use axum::http::StatusCode;
use cloude_protocol::keys::Scope;

use crate::keys::Rejected;

/// `Retry-After` while the memory for request bodies is in use, in seconds.
pub const BODIES_RETRY_S: u64 = 5;

/// A request that fails in the HTTP layer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("no such endpoint; docs/api.md lists all")]
    NoEndpoint,
    #[error(
        "this endpoint does not support the method; the header `Allow` lists those that it supports"
    )]
    Method,
    #[error("unsupported media type: send the header `Content-Type: application/json`")]
    NotJson,
    #[error("empty request body: send a JSON object")]
    EmptyBody,
    #[error("the request body is larger than this server allows (`limits.body_bytes`)")]
    LargeBody,
    /// The connection broke, or the transfer coding is invalid.
    #[error(
        "the request body did not arrive in time (`limits.body_timeout_ms`, and 1 s more for each MiB received)"
    )]
    SlowBody,
    #[error(
        "the server receives too many request bodies now (`limits.body_bytes_in_flight`); try again in {BODIES_RETRY_S} s"
    )]
    BodiesFull,
    #[error("cannot read the request body: {0}")]
    UnreadableBody(String),
    #[error("invalid request body: {0}")]
    InvalidBody(#[from] serde_json::Error),
    /// `field` is a path of the body: `limits.vcpus`, `files[2].path`.
    #[error("invalid request body: {error}")]
    InvalidField {
        field: String,
        error: serde_json::Error,
    },
    #[error("invalid query of the URL: {0}")]
    Query(String),
    #[error("the path of the URL is not UTF-8")]
    Path,
    #[error(
        "no execution has the id `{id}`: it is unknown, or its result was removed (`store.keep_hours`)"
    )]
    UnknownExecution { id: String },
    #[error(
        "the execution `{id}` has no artifact `{path}`; GET /v1/executions/{id}/artifacts lists all"
    )]
    UnknownArtifact { id: String, path: String },
    #[error(
        "no batch has the id `{id}`: it is unknown, or its results were removed (`store.keep_hours`)"
    )]
    UnknownBatch { id: String },
    #[error("the execution has not ended: its artifacts are collected after its program")]
    NotEnded,
    #[error("the range of the header `Range` begins past the last of {bytes} bytes")]
    Range { bytes: u64 },
    #[error("the header `Idempotency-Key` must have 1 to 255 visible ASCII characters")]
    IdempotencyKey,
    #[error("the header `Last-Event-ID` must have the `id` of an event of this server")]
    LastEventId,
    #[error("no template has the id `{id}`; GET /v1/templates lists all")]
    UnknownTemplate { id: String },
    /// A request without `Upgrade: websocket`.
    #[error("this endpoint is a WebSocket: send the handshake of RFC 6455, version 13")]
    NotWebSocket,
    #[error("no language has the name `{name}`; GET /v1/languages lists all")]
    UnknownLanguage { name: String },
    #[error("send exactly one valid header `Host`, with the name of this server")]
    NoHost,
    /// DNS rebinding, or a name that the operator has not configured.
    #[error(
        "this server does not answer as `{host}`: use `localhost` or its address, or add the name to `api.allowed_hosts`"
    )]
    ForeignHost { host: String },
    /// A page of another site in a browser.
    #[error(
        "requests of web pages from `{origin}` are refused; list its host in `api.allowed_hosts` to serve them"
    )]
    ForeignOrigin { origin: String },
    #[error(
        "this server requires an API key: send the header `Authorization: Bearer cloude_…` (`cloude` takes CLOUDE_API_KEY)"
    )]
    NoKey,
    #[error("the API key is not one of this server's keys")]
    UnknownKey,
    #[error("the API key has expired: ask for another one")]
    ExpiredKey,
    #[error("the API key was revoked: ask for another one")]
    RevokedKey,
    #[error("the API key `{id}` lacks the scope `{scope}`, which this request needs")]
    Scope { id: String, scope: Scope },
    #[error("no API key has the id `{id}`; GET /v1/keys lists all")]
    UnknownKeyId { id: String },
    #[error(
        "this endpoint answers only clients on the server's host (loopback addresses and Unix sockets)"
    )]
    NotLocal,
    /// A handler panicked.
    #[error("internal server error; the log of clouded has the panic message")]
    Panic,
}

impl RequestError {
    /// The status code of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            RequestError::NoEndpoint
            | RequestError::UnknownExecution { .. }
            | RequestError::UnknownTemplate { .. }
            | RequestError::UnknownLanguage { .. }
            | RequestError::UnknownBatch { .. }
            | RequestError::UnknownArtifact { .. }
            | RequestError::UnknownKeyId { .. } => StatusCode::NOT_FOUND,
            RequestError::NotEnded => StatusCode::CONFLICT,
            RequestError::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            RequestError::Method => StatusCode::METHOD_NOT_ALLOWED,
            RequestError::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            RequestError::LargeBody => StatusCode::PAYLOAD_TOO_LARGE,
            RequestError::SlowBody => StatusCode::REQUEST_TIMEOUT,
            RequestError::BodiesFull => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::EmptyBody
            | RequestError::UnreadableBody(_)
            | RequestError::InvalidBody(_)
            | RequestError::InvalidField { .. }
            | RequestError::Query(_)
            | RequestError::IdempotencyKey
            | RequestError::LastEventId
            | RequestError::NotWebSocket
            | RequestError::Path => StatusCode::BAD_REQUEST,
            RequestError::NoHost => StatusCode::BAD_REQUEST,
            RequestError::ForeignHost { .. } => StatusCode::MISDIRECTED_REQUEST,
            RequestError::NoKey
            | RequestError::UnknownKey
            | RequestError::ExpiredKey
            | RequestError::RevokedKey => StatusCode::UNAUTHORIZED,
            RequestError::NotLocal
            | RequestError::ForeignOrigin { .. }
            | RequestError::Scope { .. } => StatusCode::FORBIDDEN,
            RequestError::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The limit that refused the request, as `cloude_rejected_total` names it.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            RequestError::LargeBody => Some("body_size"),
            RequestError::SlowBody => Some("body_time"),
            RequestError::BodiesFull => Some("body_memory"),
            _ => None,
        }
    }

    /// The field of the request body that is wrong.
    pub fn field(&self) -> Option<String> {
        match self {
            RequestError::InvalidField { field, .. } => Some(shown(field)),
            _ => None,
        }
    }

    /// For an id of the URL, which may be long and may have control characters.
    pub fn unknown_execution(id: &str) -> Self {
        RequestError::UnknownExecution { id: shown(id) }
    }

    /// For an id of the URL.
    pub fn unknown_batch(id: &str) -> Self {
        RequestError::UnknownBatch { id: shown(id) }
    }

    /// For a path of the URL.
    pub fn unknown_artifact(id: &str, path: &str) -> Self {
        RequestError::UnknownArtifact {
            id: shown(id),
            path: shown(path),
        }
    }

    /// Likewise.
    pub fn unknown_template(id: &str) -> Self {
        RequestError::UnknownTemplate { id: shown(id) }
    }

    /// For a name of the URL.
    pub fn unknown_language(name: &str) -> Self {
        RequestError::UnknownLanguage { name: shown(name) }
    }

    /// Likewise.
    pub fn unknown_key(id: &str) -> Self {
        RequestError::UnknownKeyId { id: shown(id) }
    }

    /// The value of `WWW-Authenticate` (RFC 6750, 3).
    pub fn challenge(&self) -> Option<String> {
        let error = match self {
            RequestError::NoKey => return Some("Bearer realm=\"cloude\"".into()),
            RequestError::UnknownKey | RequestError::ExpiredKey | RequestError::RevokedKey => {
                "invalid_token".into()
            }
            RequestError::Scope { scope, .. } => format!("insufficient_scope\", scope=\"{scope}"),
            _ => return None,
        };
        Some(format!("Bearer realm=\"cloude\", error=\"{error}\""))
    }

    /// For the value of the header `Host`.
    pub fn foreign_host(host: &str) -> Self {
        RequestError::ForeignHost { host: shown(host) }
    }

    /// For the value of the header `Origin`.
    pub fn foreign_origin(origin: &[u8]) -> Self {
        RequestError::ForeignOrigin {
            origin: shown(&String::from_utf8_lossy(origin)),
        }
    }
}

fn shown(id: &str) -> String {
    id.chars().take(80).flat_map(char::escape_debug).collect()
}

impl From<Rejected> for RequestError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Unknown => RequestError::UnknownKey,
            Rejected::Expired => RequestError::ExpiredKey,
            Rejected::Revoked => RequestError::RevokedKey,
        }
    }
}
