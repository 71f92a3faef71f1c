//! Errors of the API: the status, `{"error": "…"}`, and `Retry-After` where a retry helps. Below `/v1` the body is a
//! [`Problem`] instead. The test in `error/table.rs` prints all of them.

mod request;

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use cloude_engine::TemplateError;
use cloude_protocol::api::{ErrorBody, PROBLEM_JSON, Problem};

use crate::jobs::{BuildError, Refused, SubmitError};
use crate::keys::KeyError;
use crate::scheduler::EnterError;
use crate::store::StoreError;
use request::BODIES_RETRY_S;

pub use request::RequestError;

/// `Retry-After` while too many templates are being built, in seconds: about the duration of a build.
const BUILD_RETRY_S: u64 = 10;
/// `Retry-After` during the shutdown, in seconds.
pub const RESTART_RETRY_S: u64 = 5;
/// `Retry-After` while the job store cannot write, in seconds.
const STORE_RETRY_S: u64 = 10;

/// A failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// The field of the request that is wrong.
    field: Option<String>,
    retry_after_s: Option<u64>,
    reason: Option<Reason>,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
}

/// The limit that refused a request, as `cloude_rejected_total` names it. An extension of the response.
#[derive(Clone, Copy, Debug)]
pub struct Reason(pub &'static str);

impl ApiError {
    fn new(status: StatusCode, message: impl ToString) -> Self {
        ApiError {
            status,
            message: message.to_string(),
            field: None,
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

    fn with_field(self, field: Option<String>) -> Self {
        ApiError { field, ..self }
    }

    /// The message for the client.
    pub fn into_message(self) -> String {
        self.message
    }

    /// The response, also for layers outside of handlers.
    pub fn into_http(self) -> Response<Body> {
        let body = Json(ErrorBody {
            error: self.message.clone(),
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
        let challenge = self.challenge.as_deref().map(HeaderValue::try_from);
        if let Some(Ok(challenge)) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self.problem());
        response
    }

    fn problem(self) -> Problem {
        let (kind, title) = match self.reason {
            Some(Reason("queue")) => ("/problems/queue-full", "The queue is full"),
            Some(Reason("store")) => ("/problems/store", "The job store cannot write"),
            Some(Reason("template_builds")) => {
                ("/problems/template-builds", "Too many builds of templates")
            }
            Some(Reason(reason)) if reason.starts_with("quota.") => {
                ("/problems/quota", "A quota is used up")
            }
            _ if self.field.is_some() => ("/problems/invalid-field", "A field is invalid"),
            _ => {
                let title = self.status.canonical_reason();
                ("about:blank", title.unwrap_or("Error"))
            }
        };
        Problem {
            kind: kind.to_owned(),
            title: title.to_owned(),
            status: self.status.as_u16(),
            detail: self.message,
            field: self.field,
            retry_after_s: self.retry_after_s,
        }
    }
}

/// Replaces the bodies of errors below `/v1` by problem documents (RFC 9457).
pub async fn problems(request: Request, next: Next) -> axum::response::Response {
    let is_v1 = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    if is_v1 && let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // A problem always serializes.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        *response.body_mut() = Body::from(body);
        let headers = response.headers_mut();
        headers.remove(axum::http::header::CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    }
    response
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
            field: error.field(),
            ..ApiError::new(error.status(), error)
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Name => {
                ApiError::new(StatusCode::BAD_REQUEST, error).with_field(Some("name".into()))
            }
            KeyError::NoScope => {
                ApiError::new(StatusCode::BAD_REQUEST, error).with_field(Some("scopes".into()))
            }
            KeyError::Expiry { .. } => {
                ApiError::new(StatusCode::BAD_REQUEST, error).with_field(Some("expires_s".into()))
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
        let field = refused.field();
        ApiError::new(status, refused).with_field(field)
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
            SubmitError::KeyReused => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error),
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
            | StoreError::KeyUsed
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
