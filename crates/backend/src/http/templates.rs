//! `/v1/templates`.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use cloude_protocol::api::{TemplateInfo, TemplateRequest};

use super::error::{ApiError, RequestError};
use super::extract::{ApiJson, ApiPath};
use crate::jobs::Service;
use crate::keys::Caller;

/// `GET /v1/templates`
pub async fn list(State(service): State<Service>) -> Json<Vec<TemplateInfo>> {
    Json(service.templates().await)
}

/// `POST /v1/templates`: 201 if this request built the template, 200 if it existed or another build was running.
pub async fn build(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiJson(request): ApiJson<TemplateRequest>,
) -> Result<(StatusCode, Json<TemplateInfo>), ApiError> {
    let (info, built) = service.build_template(caller.tenant(), &request).await?;
    let status = if built {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(info)))
}

/// `DELETE /v1/templates/{id}`
pub async fn remove(
    State(service): State<Service>,
    ApiPath(id): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    if service.remove_template(&id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(RequestError::unknown_template(&id).into())
}
