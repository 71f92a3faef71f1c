//! Every failure is JSON: `{"error": "…"}`.

use axum::Json;
use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use cloude_engine::TemplateError;
use cloude_protocol::api::ErrorBody;

use crate::jobs::admission::Refused;
use crate::jobs::{BuildError, SubmitError};
use crate::store::StoreError;

/// After so many seconds a template's build may be tried again where too many wait: about what a build takes.
const BUILD_RETRY_S: u64 = 10;

/// What a client did wrong, or what we could not do.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    retry_after_s: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            retry_after_s: None,
        }
    }

    pub fn unknown(id: &str) -> Self {
        let message = format!("there is no execution `{}`", id.escape_debug());
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

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
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        self.into_http()
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        let (status, retry_after_s) = match error {
            SubmitError::Refused(Refused::Invalid(_)) => (StatusCode::BAD_REQUEST, None),
            SubmitError::Refused(Refused::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, None),
            SubmitError::QueueFull(full) => {
                (StatusCode::TOO_MANY_REQUESTS, Some(full.retry_after_s))
            }
            SubmitError::Draining => (StatusCode::SERVICE_UNAVAILABLE, Some(5)),
            SubmitError::Store(error @ StoreError::Content(_)) => return error.into(),
            SubmitError::Store(error) => {
                tracing::error!(%error, "an execution is refused");
                return ApiError {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    message: "the job store cannot write; see GET /health and the server's log"
                        .into(),
                    retry_after_s: Some(10),
                };
            }
        };
        ApiError {
            status,
            message,
            retry_after_s,
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        let message = error.to_string();
        let (status, retry_after_s) = match error {
            TemplateError::Impossible(_) => (StatusCode::BAD_REQUEST, None),
            TemplateError::Building => (StatusCode::CONFLICT, None),
            TemplateError::TooManyBuilds => (StatusCode::TOO_MANY_REQUESTS, Some(BUILD_RETRY_S)),
            TemplateError::QueueFull(full) => {
                (StatusCode::TOO_MANY_REQUESTS, Some(full.retry_after_s))
            }
            TemplateError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        ApiError {
            status,
            message,
            retry_after_s,
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
        // The client can do nothing with the details; whoever runs the server can.
        tracing::error!(%error, "reading the job store");
        let message = match error {
            StoreError::Content(_) => {
                "the stored execution cannot be read by this version of clouded"
            }
            _ => "the job store failed; see the server's log",
        };
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}
