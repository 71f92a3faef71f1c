//! `/v1/templates`: what executions are forked from.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cloude_protocol::api::{TemplateInfo, TemplateRequest};

use super::error::ApiError;
use super::extract::ApiJson;
use crate::jobs::Service;

/// `GET /v1/templates`
pub async fn list(State(service): State<Service>) -> Json<Vec<TemplateInfo>> {
    Json(service.templates().await)
}

/// `POST /v1/templates`: 201 when it was built for this request, 200 when it was there or somebody else
/// built it.
pub async fn build(
    State(service): State<Service>,
    ApiJson(request): ApiJson<TemplateRequest>,
) -> Result<(StatusCode, Json<TemplateInfo>), ApiError> {
    let (info, built) = service.build_template(&request).await?;
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
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    if service.remove_template(&id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = format!("there is no template `{}`", id.escape_debug());
    Err(ApiError::new(StatusCode::NOT_FOUND, message))
}
