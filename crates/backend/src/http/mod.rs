//! The HTTP interface.

mod error;
mod executions;
mod extract;
mod installation;
mod metrics;
mod original;
mod peer;
mod serve;
mod templates;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::jobs::Service;
use error::ApiError;

pub use serve::serve;

/// All routes. `body_bytes`: the most that a request's body may have.
pub fn router(service: Service, body_bytes: usize) -> Router {
    Router::new()
        .route("/", get(original::root))
        .route("/health", get(original::health))
        .route("/run", post(original::run))
        .route("/status/{id}", get(original::status))
        .route("/v1/executions", post(executions::create))
        .route(
            "/v1/executions/{id}",
            get(executions::read).delete(executions::cancel),
        )
        .route("/v1/installation", get(installation::read))
        .route("/v1/languages", get(executions::languages))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/templates", get(templates::list).post(templates::build))
        .route("/v1/templates/{id}", delete(templates::remove))
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "no such endpoint; see docs/api.md")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed on this path",
            )
        })
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal server error; see the server's log",
            )
            .into_http()
        }))
        .with_state(service)
}
