//! `/v1/batches`.

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::Response;
use cloude_protocol::api::{Batch, BatchRequest};

use super::error::{ApiError, RequestError};
use super::extract::{ApiJson, ApiPath};
use super::output;
use crate::jobs::Service;
use crate::keys::Caller;

/// `POST /v1/batches`
pub async fn create(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiJson(request): ApiJson<BatchRequest>,
) -> Result<Response, ApiError> {
    let tenant = caller.tenant().clone();
    let batch = service.submit_batch(tenant, request).await?;
    let place = format!("/v1/batches/{}", batch.id);
    Ok(output::accepted(place, &batch))
}

/// `GET /v1/batches/{id}`
pub async fn read(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Batch>, ApiError> {
    match service.batch(&caller, &id).await? {
        Some(batch) => Ok(Json(batch)),
        None => Err(RequestError::unknown_batch(&id).into()),
    }
}
