//! Extractor of JSON bodies. Errors name the field or the position.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::{ApiError, RequestError};

/// A request body of type `T`.
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, ApiError> {
        // Required against cross-site requests: browsers send forms to other origins without a preflight, but not
        // application/json.
        if !is_json(request.headers()) {
            return Err(RequestError::NotJson.into());
        }
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => RequestError::LargeBody,
                    _ => RequestError::UnreadableBody(rejection.body_text()),
                })?;
        if bytes.is_empty() {
            return Err(RequestError::EmptyBody.into());
        }
        let body = serde_json::from_slice(&bytes).map_err(RequestError::from)?;
        Ok(ApiJson(body))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}
