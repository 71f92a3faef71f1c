//! Requests that fail.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::fields::Errors;
use super::form::NotUtf8;
use super::request::refused;
use crate::http::error::ApiError;
use crate::jobs::{Refused, SubmitError};
use crate::scheduler::EnterError;

/// A request that fails here, or as on `/v1`.
pub enum Refusal {
    /// 422 with messages by field.
    Invalid(Errors),
    /// 400 with a message.
    Bad(String),
    NotFound,
    /// 503 with the seconds after which a place is likely to be free.
    QueueFull(u64),
    Api(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Refusal::Api(error.into())
    }
}

impl From<Errors> for Refusal {
    fn from(errors: Errors) -> Self {
        Refusal::Invalid(errors)
    }
}

impl From<NotUtf8> for Refusal {
    fn from(_: NotUtf8) -> Self {
        Refusal::Bad(not_utf8("this submission"))
    }
}

/// The message for a text that is not UTF-8.
pub fn not_utf8(whose: &str) -> String {
    format!(
        "some attributes for {whose} cannot be converted to UTF-8, use base64_encoded=true query parameter"
    )
}

/// The refusal of a submission that `/v1` refuses.
pub fn of_refused(error: Refused) -> Refusal {
    match refused(&error) {
        Some(errors) => Refusal::Invalid(errors),
        None => Refusal::Api(error.into()),
    }
}

/// The refusal of submissions of which none was accepted.
pub fn of_submit(error: SubmitError) -> Refusal {
    match error {
        SubmitError::Enter(EnterError::Full(full)) => Refusal::QueueFull(full.retry_after_s),
        SubmitError::Refused(error) => of_refused(error),
        error => Refusal::Api(error.into()),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = |status: StatusCode, message: &str| {
            (status, Json(json!({"error": message}))).into_response()
        };
        match self {
            Refusal::Invalid(errors) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(errors)).into_response()
            }
            Refusal::Bad(message) => error(StatusCode::BAD_REQUEST, &message),
            Refusal::NotFound => error(StatusCode::NOT_FOUND, "no submission has this token"),
            Refusal::QueueFull(seconds) => {
                let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "queue is full");
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
                response
            }
            Refusal::Api(error) => error.into_response(),
        }
    }
}
