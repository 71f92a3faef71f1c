//! `/v1/keys` and `/v1/usage`.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use cloude_protocol::keys::{KeyInfo, KeyRequest, NewKey, Usage};

use super::error::{ApiError, RequestError};
use super::extract::{ApiJson, ApiPath};
use crate::jobs::Service;
use crate::keys::Caller;

/// `GET /v1/keys`
pub async fn list(State(service): State<Service>) -> Json<Vec<KeyInfo>> {
    Json(service.keys().list())
}

/// `POST /v1/keys`
pub async fn create(
    State(service): State<Service>,
    ApiJson(request): ApiJson<KeyRequest>,
) -> Result<(StatusCode, Json<NewKey>), ApiError> {
    let key = service.keys().create(request).await?;
    Ok((StatusCode::CREATED, Json(key)))
}

/// `DELETE /v1/keys/{id}`: revokes a key. 204 also if it was revoked before.
pub async fn revoke(
    State(service): State<Service>,
    ApiPath(id): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    if service.keys().revoke(&id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(RequestError::unknown_key(&id).into())
}

/// `GET /v1/usage`: of the caller's key, or of all keys for `admin`.
pub async fn usage(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Usage>>, ApiError> {
    Ok(Json(service.usage(&caller).await?))
}
