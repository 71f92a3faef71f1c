//! The interface of the first Cloude: `/`, `/health`, `/run` and `/status/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use cloude_protocol::api::{ExecutionRequest, RunRequest, RunResponse};
use serde_json::{Value, json};

use super::error::{ApiError, RequestError};
use super::extract::{ApiJson, ApiPath};
use super::output;
use super::peer::Peer;
use crate::jobs::{Client, Health, Service};
use crate::keys::Caller;

/// `GET /`
pub async fn root() -> Json<Value> {
    Json(json!({"service": "clouded", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /health`: 503 during the shutdown and while writes to the job store fail, so that load balancers choose another
/// server.
pub async fn health(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match service.health() {
        Health::Ok => (StatusCode::OK, Json(json!({"status": "ok"}))),
        Health::Draining => (unavailable, Json(json!({"status": "draining"}))),
        Health::Degraded(failures) => {
            let error = format!("the job store cannot write: {}", failures.error);
            let body = json!({"status": "degraded", "error": error, "unwritten": failures.writes});
            (unavailable, Json(body))
        }
    }
}

/// `POST /run`
pub async fn run(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiJson(RunRequest { language, code }): ApiJson<RunRequest>,
) -> Result<Json<RunResponse>, ApiError> {
    let request = ExecutionRequest {
        language,
        code,
        ..ExecutionRequest::default()
    };
    let tenant = caller.tenant().clone();
    let job = service.submit(tenant, request, Client::Leaves).await?;
    Ok(Json(RunResponse {
        id: job.about.id.clone(),
    }))
}

/// `GET /status/{id}`
pub async fn status(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, ApiError> {
    match service.find(&caller, &id).await? {
        Some(found) => Ok(match found.status() {
            Ok(status) => output::unfinished(&service, &peer, status),
            Err(execution) => output::status(&service, &peer, execution),
        }),
        None => Err(RequestError::unknown_execution(&id).into()),
    }
}
