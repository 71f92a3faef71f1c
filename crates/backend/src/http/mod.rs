//! The HTTP interface (docs/api.md).

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
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::jobs::Service;
use error::{ApiError, RequestError};

pub use serve::serve;

/// All routes. `body_bytes`: maximum length of a request body.
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
        .fallback(|| async { ApiError::from(RequestError::NoEndpoint) })
        .method_not_allowed_fallback(|| async { ApiError::from(RequestError::Method) })
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::from(RequestError::Panic).into_http()
        }))
        .with_state(service)
}
