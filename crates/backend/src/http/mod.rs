//! The HTTP interface (docs/api.md).

mod addresses;
mod attach;
mod auth;
mod batches;
mod bodies;
mod dialects;
mod error;
mod events;
mod executions;
mod extract;
mod health;
mod host;
mod installation;
mod keys;
mod listener;
mod metrics;
mod negotiate;
mod openapi;
mod original;
mod output;
mod page;
mod peer;
mod playground;
mod raw;
mod serve;
mod templates;
mod tls;
mod transport;
mod unix_socket;
mod upgrade;
mod websocket;

use std::sync::Arc;

use axum::extract::Extension;
use axum::middleware::{self, map_response};
use axum::routing::{delete, get, post};
use axum::{Router, response};
use cloude_protocol::keys::Scope;
use tower_http::catch_panic::CatchPanicLayer;

use crate::bounds::Bounds;
use crate::jobs::Service;
use bodies::Bodies;
use error::{ApiError, Reason, RequestError};
use host::Hosts;

/// Callbacks of executions with a dialect.
pub use dialects::judge0::callback;
pub use listener::Listener;
pub use serve::{ConnectionLimits, serve};
pub use tls::{TlsError, TlsFiles};

/// All routes.
pub fn router(service: Service) -> Router {
    let bounds = service.bounds().clone();
    let bodies = Arc::new(Bodies::new(&service.config().limits, bounds.clone()));
    let hosts = Hosts::of(service.config());
    let read = |methods| auth::require(&service, Scope::Read, methods);
    let run = |methods| auth::require(&service, Scope::Run, methods);
    let admin = |methods| auth::require(&service, Scope::Admin, methods);
    Router::new()
        .route("/", get(playground::root))
        .route("/health", get(original::health))
        .route("/run", run(post(original::run)))
        .route("/status/{id}", read(get(original::status)))
        .route(
            "/v1/executions",
            read(get(executions::list)).merge(run(post(executions::create))),
        )
        .route(
            "/v1/executions/{id}",
            read(get(executions::read)).merge(run(delete(executions::cancel))),
        )
        .route(
            "/v1/executions/{id}/attach",
            run(get(attach::attach)).route_layer(middleware::from_fn(attach::key_of_protocol)),
        )
        .route("/v1/executions/{id}/events", read(get(events::read)))
        .route("/v1/executions/{id}/stdout", read(get(raw::stdout)))
        .route("/v1/executions/{id}/stderr", read(get(raw::stderr)))
        .route("/v1/executions/{id}/artifacts", read(get(raw::artifacts)))
        .route(
            "/v1/executions/{id}/artifacts/{*path}",
            read(get(raw::artifact)),
        )
        .route("/v1/batches", run(post(batches::create)))
        .route("/v1/batches/{id}", read(get(batches::read)))
        .route("/v1/health", get(original::health))
        .route("/v1/ready", get(health::ready))
        .route("/v1/installation", read(get(installation::read)))
        .route("/v1/languages", read(get(executions::languages)))
        .route("/v1/languages/{name}", read(get(executions::language)))
        .route("/metrics", read(get(metrics::metrics)))
        .route(
            "/v1/templates",
            read(get(templates::list)).merge(admin(post(templates::build))),
        )
        .route("/v1/templates/{id}", admin(delete(templates::remove)))
        .route("/v1/usage", read(get(keys::usage)))
        .route("/v1/keys", admin(get(keys::list).post(keys::create)))
        .route("/v1/keys/{id}", admin(delete(keys::revoke)))
        .merge(playground::routes())
        .merge(openapi::routes())
        .merge(dialects::piston::routes(&service))
        .merge(dialects::judge0::routes(&service))
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
        .layer(middleware::from_fn(error::problems))
        .layer(middleware::from_fn(dialects::piston::messages))
        .with_state(service)
}

/// Counts a response that says that a limit was reached.
async fn counted(response: response::Response, bounds: Bounds) -> response::Response {
    if let Some(Reason(reason)) = response.extensions().get() {
        bounds.rejected(reason);
    }
    response
}
