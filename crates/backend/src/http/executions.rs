//! `/v1/executions` and `/v1/languages`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use cloude_protocol::agent::NDJSON;
use cloude_protocol::api::{ExecutionEvent, ExecutionRequest, LanguageInfo};
use futures_util::stream;

use super::error::{ApiError, RequestError};
use super::extract::{ApiJson, ApiPath};
use super::output;
use super::peer::Peer;
use crate::jobs::{Client, Follower, Found, Job, Service, Stop};
use crate::keys::Caller;

/// `POST /v1/executions`
pub async fn create(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<ExecutionRequest>,
) -> Result<Response, ApiError> {
    let tenant = caller.tenant().clone();
    if wants_stream(&headers) {
        let job = service.submit(tenant, request, Client::Streams).await?;
        let pin = service.pins().pin(peer.closer());
        return Ok(streamed(job.follow(pin), CancelOnDrop(job), peer));
    }
    let job = service.submit(tenant, request, Client::Waits).await?;
    // The server drops this handler, and with it the guard, when the connection is closed.
    let cancel = CancelOnDrop(Arc::clone(&job));
    let execution = job.finished().await;
    drop(cancel);
    Ok(output::execution(&service, &peer, execution))
}

/// `GET /v1/executions/{id}`
pub async fn read(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, ApiError> {
    match service.find(&caller, &id).await? {
        Some(Found::Ended(execution)) => Ok(output::execution(&service, &peer, execution)),
        Some(Found::Unfinished(status)) => Ok(output::unfinished(&service, &peer, status)),
        None => Err(RequestError::unknown_execution(&id).into()),
    }
}

/// `DELETE /v1/executions/{id}`: returns the result, whose cause is `cancelled` unless it was finished before.
pub async fn cancel(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, ApiError> {
    match service.cancel(&caller, &id).await? {
        Some(execution) => Ok(output::execution(&service, &peer, execution)),
        None => Err(RequestError::unknown_execution(&id).into()),
    }
}

/// `GET /v1/languages`
pub async fn languages(
    State(service): State<Service>,
) -> Result<Json<Vec<LanguageInfo>>, ApiError> {
    Ok(Json(service.languages()))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(NDJSON))
}

/// Cancels the execution on drop. Has no effect on a finished one.
struct CancelOnDrop(Arc<Job>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.stop(Stop::Disconnected);
    }
}

fn streamed(follower: Follower, cancel: CancelOnDrop, peer: Arc<Peer>) -> Response {
    let start = (follower, cancel, Some(peer));
    let lines = stream::unfold(start, |(mut follower, cancel, mut peer)| async move {
        let line = tokio::select! {
            biased;
            event = follower.next() => line(&event?),
            // The client closed its sending half. If it closed the connection, it answers this byte with a RST.
            () = read_closed(peer.as_deref()) => {
                peer = None;
                Bytes::from_static(b"\n")
            }
        };
        Some((Ok::<_, Infallible>(line), (follower, cancel, peer)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

async fn read_closed(peer: Option<&Peer>) {
    match peer {
        Some(peer) => peer.read_closed().await,
        None => std::future::pending().await,
    }
}

fn line(event: &ExecutionEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|error| {
        // Events always serialize; the line shows the error if one does not.
        serde_json::json!({"error": error.to_string()})
            .to_string()
            .into_bytes()
    });
    line.push(b'\n');
    line.into()
}
