//! Errors of the API: the status, `{"error": "…"}`, and `Retry-After` where a retry helps. The test in `error/table.rs`
//! prints all of them.

use axum::Json;
use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use cloude_engine::TemplateError;
use cloude_protocol::api::ErrorBody;
use cloude_protocol::keys::Scope;

use crate::jobs::{BuildError, Refused, SubmitError};
use crate::keys::{KeyError, Rejected};
use crate::scheduler::EnterError;
use crate::store::StoreError;

/// `Retry-After` while too many templates are being built, in seconds: about the duration of a build.
const BUILD_RETRY_S: u64 = 10;
/// `Retry-After` during the shutdown, in seconds.
const RESTART_RETRY_S: u64 = 5;
/// `Retry-After` while the job store cannot write, in seconds.
const STORE_RETRY_S: u64 = 10;

/// `Retry-After` while the memory for request bodies is in use, in seconds.
const BODIES_RETRY_S: u64 = 5;

/// A failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    retry_after_s: Option<u64>,
    reason: Option<Reason>,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
}

/// The limit that refused a request, as `cloude_rejected_total` names it. An extension of the response.
#[derive(Clone, Copy, Debug)]
pub struct Reason(pub &'static str);

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
    #[error(
        "no execution has the id `{id}`: it is unknown, or its result was removed (`store.keep_hours`)"
    )]
    UnknownExecution { id: String },
    #[error("no template has the id `{id}`; GET /v1/templates lists all")]
    UnknownTemplate { id: String },
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
    fn status(&self) -> StatusCode {
        match self {
            RequestError::NoEndpoint
            | RequestError::UnknownExecution { .. }
            | RequestError::UnknownTemplate { .. }
            | RequestError::UnknownKeyId { .. } => StatusCode::NOT_FOUND,
            RequestError::Method => StatusCode::METHOD_NOT_ALLOWED,
            RequestError::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            RequestError::LargeBody => StatusCode::PAYLOAD_TOO_LARGE,
            RequestError::SlowBody => StatusCode::REQUEST_TIMEOUT,
            RequestError::BodiesFull => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::EmptyBody
            | RequestError::UnreadableBody(_)
            | RequestError::InvalidBody(_) => StatusCode::BAD_REQUEST,
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

    fn reason(&self) -> Option<&'static str> {
        match self {
            RequestError::LargeBody => Some("body_size"),
            RequestError::SlowBody => Some("body_time"),
            RequestError::BodiesFull => Some("body_memory"),
            _ => None,
        }
    }

    /// For an id of the URL, which may be long and may have control characters.
    pub fn unknown_execution(id: &str) -> Self {
        RequestError::UnknownExecution { id: shown(id) }
    }

    /// Likewise.
    pub fn unknown_template(id: &str) -> Self {
        RequestError::UnknownTemplate { id: shown(id) }
    }

    /// Likewise.
    pub fn unknown_key(id: &str) -> Self {
        RequestError::UnknownKeyId { id: shown(id) }
    }

    /// The value of `WWW-Authenticate` (RFC 6750, 3).
    fn challenge(&self) -> Option<String> {
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

impl ApiError {
    fn new(status: StatusCode, message: impl ToString) -> Self {
        ApiError {
            status,
            message: message.to_string(),
            retry_after_s: None,
            reason: None,
            challenge: None,
        }
    }

    fn with_retry(status: StatusCode, message: impl ToString, after_s: u64) -> Self {
        ApiError {
            retry_after_s: Some(after_s),
            ..ApiError::new(status, message)
        }
    }

    fn because(self, reason: &'static str) -> Self {
        ApiError {
            reason: Some(Reason(reason)),
            ..self
        }
    }

    /// The response, also for layers outside of handlers.
    pub fn into_http(self) -> Response<Body> {
        let body = Json(ErrorBody {
            error: self.message,
        });
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(reason) = self.reason {
            response.extensions_mut().insert(reason);
        }
        let challenge = self.challenge.map(HeaderValue::try_from);
        if let Some(Ok(challenge)) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        self.into_http()
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let retry = matches!(error, RequestError::BodiesFull).then_some(BODIES_RETRY_S);
        ApiError {
            retry_after_s: retry,
            reason: error.reason().map(Reason),
            challenge: error.challenge(),
            ..ApiError::new(error.status(), error)
        }
    }
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

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Name | KeyError::NoScope | KeyError::Expiry { .. } => {
                ApiError::new(StatusCode::BAD_REQUEST, error)
            }
            KeyError::Random(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::LanguageFile { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, refused)
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            SubmitError::Refused(refused) => refused.into(),
            SubmitError::Enter(EnterError::Full(full)) => {
                ApiError::with_retry(StatusCode::TOO_MANY_REQUESTS, &full, full.retry_after_s)
                    .because("queue")
            }
            SubmitError::Enter(EnterError::Quota(quota)) => {
                let reason = quota.quota;
                let retry = quota.retry_after_s;
                ApiError::with_retry(StatusCode::TOO_MANY_REQUESTS, quota, retry).because(reason)
            }
            SubmitError::Draining => ApiError::with_retry(unavailable, error, RESTART_RETRY_S),
            SubmitError::Store(error @ StoreError::Content(_)) => error.into(),
            SubmitError::Store(error) => {
                tracing::error!(%error, "an execution is refused");
                let message = "the server cannot store executions now: GET /health has the error";
                ApiError::with_retry(unavailable, message, STORE_RETRY_S).because("store")
            }
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        let busy = StatusCode::TOO_MANY_REQUESTS;
        match &error {
            TemplateError::Impossible(_) => ApiError::new(StatusCode::BAD_REQUEST, error),
            TemplateError::Building => ApiError::new(StatusCode::CONFLICT, error),
            TemplateError::TooManyBuilds => {
                ApiError::with_retry(busy, error, BUILD_RETRY_S).because("template_builds")
            }
            TemplateError::QueueFull(full) => {
                ApiError::with_retry(busy, full, full.retry_after_s).because("queue")
            }
            TemplateError::Failed(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}

impl From<BuildError> for ApiError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Submit(error) => error.into(),
            BuildError::Template(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        // The details are for the operator, not for the client.
        tracing::error!(%error, "using the job store failed");
        let message = match error {
            StoreError::Content(_) => {
                "another version of clouded stored this execution, and this one cannot read it"
            }
            StoreError::Sqlite(_)
            | StoreError::Create(_)
            | StoreError::Migration(_)
            | StoreError::Newer { .. }
            | StoreError::Unwritten(_)
            | StoreError::Closed => {
                "the job store cannot be read or written; the log of clouded has the error"
            }
        };
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

#[cfg(test)]
mod table;
