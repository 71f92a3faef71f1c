//! Starts the program of a request.

use std::sync::Arc;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cloude_protocol::agent::Interactive;
use cloude_protocol::api::ExecutionRequest;
use cloude_protocol::language::Language;
use serde_json::{Map, Value, json};

use super::request::{Asked, limit_refused};
use super::response::Failed;
use super::runtimes::{Range, own_name, version};
use crate::http::dialects::memory;
use crate::http::error::{ApiError, RESTART_RETRY_S};
use crate::jobs::{Client, Job, Service, SubmitError};
use crate::keys::Caller;

/// A program that was accepted.
pub struct Started {
    pub job: Arc<Job>,
    pub language: Arc<Language>,
    pub version: semver::Version,
}

/// Starts the program of a request.
pub async fn start(
    service: &Service,
    caller: &Caller,
    body: Map<String, Value>,
    interactive: Option<Interactive>,
) -> Result<Started, Refusal> {
    let asked = Asked::of(body).map_err(Refusal::Invalid)?;
    let unknown = || {
        let (language, version) = (&asked.language, &asked.version);
        Refusal::Invalid(format!("{language}-{version} runtime is unknown"))
    };
    let language = service
        .language(own_name(&asked.language))
        .ok_or_else(unknown)?;
    let version = version(&language, service.image_version(&language).as_deref());
    let range = Range::parse(&asked.version).ok_or_else(unknown)?;
    if !range.has(&version) {
        return Err(unknown());
    }
    let memory_field = asked.memory_field();
    let default_mib = memory::default_mib(&language, service.config());
    let request = ExecutionRequest {
        interactive,
        ..asked
            .request(&language, default_mib)
            .map_err(Refusal::Invalid)?
    };

    let submitted = service.submit(caller.tenant().clone(), request, Client::Streams);
    let job = submitted.await.map_err(|error| match &error {
        SubmitError::Refused(refused) => match limit_refused(refused, memory_field) {
            Some(message) => Refusal::Invalid(message),
            None => error.into(),
        },
        _ => error.into(),
    })?;
    Ok(Started {
        job,
        language,
        version,
    })
}

/// A request that fails here, or as on `/v1`.
pub enum Refusal {
    Invalid(String),
    Failed(Failed),
    Api(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Refusal::Api(error.into())
    }
}

impl Refusal {
    /// The message for a client without a response of its own.
    pub fn message(self) -> String {
        match self {
            Refusal::Api(error) => error.into_message(),
            Refusal::Invalid(message)
            | Refusal::Failed(Failed::Infrastructure(message) | Failed::Stopped(message)) => {
                message
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Refusal::Api(error) => return error.into_response(),
            Refusal::Invalid(message) => (StatusCode::BAD_REQUEST, message),
            Refusal::Failed(Failed::Infrastructure(message)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, message)
            }
            Refusal::Failed(Failed::Stopped(message)) => (StatusCode::SERVICE_UNAVAILABLE, message),
        };
        let mut response = (status, Json(json!({"message": message}))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let after = HeaderValue::from(RESTART_RETRY_S);
            response.headers_mut().insert(RETRY_AFTER, after);
        }
        response
    }
}
