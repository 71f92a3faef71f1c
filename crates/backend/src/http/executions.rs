//! `/v1`: executions that a client waits for or reads along.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use cloude_protocol::agent::NDJSON;
use cloude_protocol::api::{ExecutionEvent, ExecutionRequest, LanguageInfo};
use futures_util::stream;

use super::error::ApiError;
use super::extract::ApiJson;
use crate::jobs::{Client, Follower, Job, Service};

/// `POST /v1/executions`
pub async fn create(
    State(service): State<Service>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<ExecutionRequest>,
) -> Result<Response, ApiError> {
    if wants_stream(&headers) {
        let job = service.submit(request, Client::Streams).await?;
        return Ok(streamed(job.follow(), HangUp(job)));
    }
    let job = service.submit(request, Client::Waits).await?;
    // Dropped with this handler, which the server drops when the connection is gone.
    let hang_up = HangUp(Arc::clone(&job));
    let execution = job.finished().await;
    drop(hang_up);
    Ok(Json(&*execution).into_response())
}

/// `GET /v1/executions/{id}`
pub async fn read(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    if let Some(execution) = service.result(&id).await? {
        return Ok(Json(&*execution).into_response());
    }
    match service.status(&id).await? {
        Some(status) => Ok(Json(status).into_response()),
        None => Err(ApiError::unknown(&id)),
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

/// Cancels the execution when it is dropped before the end. After the end that changes nothing.
struct HangUp(Arc<Job>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

fn streamed(follower: Follower, hang_up: HangUp) -> Response {
    let lines = stream::unfold((follower, hang_up), |(mut follower, hang_up)| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(line(&event)), (follower, hang_up)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

fn line(event: &ExecutionEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|error| {
        // Nothing in an event can fail to be JSON; a client must still be told if it does.
        serde_json::json!({"error": error.to_string()})
            .to_string()
            .into_bytes()
    });
    line.push(b'\n');
    line.into()
}
