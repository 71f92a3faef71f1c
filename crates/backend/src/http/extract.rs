//! Extractors of bodies, queries and paths. Errors name the field or the position.

use std::sync::Arc;

use axum::RequestExt;
use axum::body::Body;
use axum::extract::{Extension, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _};

use super::bodies::Bodies;
use super::error::{ApiError, RequestError};

/// A request body of type `T`.
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, ApiError> {
        // Required against cross-site requests: browsers send forms to other origins without a preflight, but not
        // application/json.
        if !is_json(request.headers()) {
            return Err(RequestError::NotJson.into());
        }
        receive(request).await.map(ApiJson)
    }
}

/// Likewise, for clients of other servers that send JSON as `text/plain` or without a content type. A web page can send
/// both without a preflight, and the check of `Origin` (host.rs) refuses it.
pub struct UntypedJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for UntypedJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, ApiError> {
        let headers = request.headers();
        let is_untyped = match headers.get(CONTENT_TYPE) {
            Some(value) => value.as_bytes().starts_with(b"text/plain"),
            None => true,
        };
        if !is_untyped && !is_json(headers) {
            return Err(RequestError::NotJson.into());
        }
        receive(request).await.map(UntypedJson)
    }
}

/// Receives and parses a body.
async fn receive<T: DeserializeOwned>(mut request: Request<Body>) -> Result<T, ApiError> {
    let Extension(bodies) = request
        .extract_parts::<Extension<Arc<Bodies>>>()
        .await
        .map_err(|error| RequestError::UnreadableBody(error.to_string()))?;
    let (parts, body) = request.into_parts();
    let received = bodies.receive(&parts.headers, body).await?;
    if received.bytes.is_empty() {
        return Err(RequestError::EmptyBody.into());
    }
    // Every body is an object; serde would also take an array of the fields in their order.
    if !received.bytes.trim_ascii_start().starts_with(b"{") {
        let error = serde_json::Error::custom("the body is not a JSON object");
        return Err(RequestError::from(error).into());
    }
    serde_json::from_slice(&received.bytes)
        .map_err(|error| invalid::<T>(&received.bytes, error).into())
}

/// The error of a body with the path of the field that is wrong. Parses it once more, which a valid body is spared.
fn invalid<T: DeserializeOwned>(bytes: &[u8], error: serde_json::Error) -> RequestError {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => return error.into(),
        Err(error) => error.path().to_string(),
    };
    // For a missing or unknown field, serde reports the path of the object around it. The text of the error has its name.
    let text = error.to_string();
    let named = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| text.strip_prefix(start)?.split('`').next());
    let field = match (path.as_str(), named) {
        (".", None) => return error.into(),
        (".", Some(name)) => name.to_owned(),
        (path, Some(name)) if path != name && !path.ends_with(&format!(".{name}")) => {
            format!("{path}.{name}")
        }
        (path, _) => path.to_owned(),
    };
    RequestError::InvalidField { field, error }
}

/// The query of the URL.
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(ApiQuery(query)),
            Err(rejection) => Err(RequestError::Query(rejection.body_text()).into()),
        }
    }
}

/// The parts of the URL's path that a route names.
pub struct ApiPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(ApiPath(path)),
            Err(_) => Err(RequestError::Path.into()),
        }
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
