//! `GET /metrics` in the OpenMetrics text format.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::jobs::Service;
use crate::metrics;

/// `GET /metrics`
pub async fn metrics(State(service): State<Service>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        service.metrics().await,
    )
}
