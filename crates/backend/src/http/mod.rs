//! The HTTP interface (docs/api.md).

mod addresses;
mod bodies;
mod error;
mod executions;
mod extract;
mod host;
mod installation;
mod listener;
mod metrics;
mod original;
mod output;
mod peer;
mod serve;
mod templates;
mod transport;
mod unix_socket;

use std::sync::Arc;

use axum::extract::Extension;
use axum::middleware::{self, map_response};
use axum::routing::{delete, get, post};
use axum::{Router, response};
use tower_http::catch_panic::CatchPanicLayer;

use crate::bounds::Bounds;
use crate::jobs::Service;
use bodies::Bodies;
use error::{ApiError, Reason, RequestError};
use host::Hosts;

pub use listener::Listener;
pub use serve::{ConnectionLimits, serve};

/// All routes.
pub fn router(service: Service) -> Router {
    let bounds = service.bounds().clone();
    let bodies = Arc::new(Bodies::new(&service.config().limits, bounds.clone()));
    let hosts = Hosts::of(service.config());
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
        .layer(Extension(bodies))
        .layer(map_response(move |response| {
            counted(response, bounds.clone())
        }))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::from(RequestError::Panic).into_http()
        }))
        .layer(middleware::from_fn_with_state(hosts, host::check))
        .with_state(service)
}

/// Counts a response that says that a limit was reached.
async fn counted(response: response::Response, bounds: Bounds) -> response::Response {
    if let Some(Reason(reason)) = response.extensions().get() {
        bounds.rejected(reason);
    }
    response
}
