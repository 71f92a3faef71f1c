//! Extractor of JSON bodies. Errors name the field or the position.

use std::sync::Arc;

use axum::RequestExt;
use axum::body::Body;
use axum::extract::{Extension, FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::bodies::Bodies;
use super::error::{ApiError, RequestError};

/// A request body of type `T`.
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request<Body>, _: &S) -> Result<Self, ApiError> {
        // Required against cross-site requests: browsers send forms to other origins without a preflight, but not
        // application/json.
        if !is_json(request.headers()) {
            return Err(RequestError::NotJson.into());
        }
        let Extension(bodies) = request
            .extract_parts::<Extension<Arc<Bodies>>>()
            .await
            .map_err(|error| RequestError::UnreadableBody(error.to_string()))?;
        let (parts, body) = request.into_parts();
        let received = bodies.receive(&parts.headers, body).await?;
        if received.bytes.is_empty() {
            return Err(RequestError::EmptyBody.into());
        }
        let body = serde_json::from_slice(&received.bytes).map_err(RequestError::from)?;
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
