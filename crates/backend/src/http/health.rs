//! `/v1/health` and `/v1/ready`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloude_protocol::api::Readiness;

use crate::jobs::Service;

/// `GET /v1/ready`: 503 if the server cannot run programs now.
pub async fn ready(State(service): State<Service>) -> (StatusCode, Json<Readiness>) {
    let readiness = service.readiness().await;
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness))
}
