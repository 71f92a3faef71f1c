//! The original interface.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cloude_protocol::api::{ExecutionRequest, RunRequest, RunResponse, StatusResponse};
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::ApiJson;
use crate::jobs::{Client, Service};

/// `GET /`
pub async fn root() -> Json<Value> {
    Json(json!({"service": "clouded", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /health`: 503 once the server is about to stop, so that a balancer looks elsewhere.
pub async fn health(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    match service.is_draining() {
        false => (StatusCode::OK, Json(json!({"status": "ok"}))),
        true => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "draining"})),
        ),
    }
}

/// `POST /run`
pub async fn run(
    State(service): State<Service>,
    ApiJson(RunRequest { language, code }): ApiJson<RunRequest>,
) -> Result<Json<RunResponse>, ApiError> {
    let request = ExecutionRequest {
        language,
        code,
        ..ExecutionRequest::default()
    };
    let job = service.submit(request, Client::Leaves).await?;
    Ok(Json(RunResponse { id: job.id.clone() }))
}

/// `GET /status/{id}`
pub async fn status(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<StatusResponse>, ApiError> {
    match service.status(&id).await? {
        Some(status) => Ok(Json(status)),
        None => Err(ApiError::unknown(&id)),
    }
}
