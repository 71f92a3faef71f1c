//! Streams of an execution's events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cloude_protocol::api::ExecutionEvent;
use futures_util::stream;
use tokio::time::Instant;

use super::error::{ApiError, RequestError};
use super::extract::ApiPath;
use super::negotiate::{Form, accepted_form};
use super::peer::Peer;
use crate::jobs::{EventId, Follower, Job, Service};
use crate::keys::Caller;

/// Silence after which a comment is sent to a reader of server-sent events, because proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /v1/executions/{id}/events`
pub async fn read(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(job) = service.readable(&caller, &id).await? else {
        return Err(RequestError::unknown_execution(&id).into());
    };
    let form = accepted_form(&headers).unwrap_or(Form::Sse);
    let after = last_event_id(&headers)?;
    let follower = Follower::of(job, service.pins().pin(peer.closer()), after);
    if follower.is_at_end() {
        // The status that stops the reconnections of an `EventSource`.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(response(follower, (), peer, form))
}

/// The events of a new execution. `guard` is dropped with the response.
pub fn of_job(
    service: &Service,
    job: Arc<Job>,
    guard: impl Send + 'static,
    peer: Arc<Peer>,
    form: Form,
) -> Response {
    let follower = Follower::of(job, service.pins().pin(peer.closer()), None);
    response(follower, guard, peer, form)
}

/// The value of `Last-Event-ID`.
fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, RequestError> {
    // An empty value is that of a reader without an event.
    let value = headers.get("last-event-id").filter(|id| !id.is_empty());
    let Some(value) = value else { return Ok(None) };
    let id = value.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some).ok_or(RequestError::LastEventId)
}

struct Reader<G> {
    follower: Follower,
    _guard: G,
    /// None once the client has closed its sending half.
    peer: Option<Arc<Peer>>,
    form: Form,
}

impl<G> Reader<G> {
    async fn next(&mut self) -> Option<Bytes> {
        let silent_until = match self.form {
            Form::Sse => Some(Instant::now() + KEEP_ALIVE),
            Form::Ndjson => None,
        };
        tokio::select! {
            biased;
            event = self.follower.next() => event.map(|(id, event)| encoded(self.form, id, &event)),
            // The client closed its sending half. If it closed the connection, it answers this byte with a RST.
            () = read_closed(self.peer.as_deref()) => {
                self.peer = None;
                Some(nothing(self.form))
            }
            () = sleep_until(silent_until) => Some(nothing(self.form)),
        }
    }
}

async fn read_closed(peer: Option<&Peer>) {
    match peer {
        Some(peer) => peer.read_closed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn response<G: Send + 'static>(
    follower: Follower,
    guard: G,
    peer: Arc<Peer>,
    form: Form,
) -> Response {
    let reader = Reader {
        follower,
        _guard: guard,
        peer: Some(peer),
        form,
    };
    let lines = stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((Ok::<_, Infallible>(line), reader))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Bytes that every reader skips.
fn nothing(form: Form) -> Bytes {
    Bytes::from_static(match form {
        Form::Ndjson => b"\n",
        Form::Sse => b":\n\n",
    })
}

fn name(event: &ExecutionEvent) -> &'static str {
    match event {
        ExecutionEvent::Accepted { .. } => "accepted",
        ExecutionEvent::Restarted { .. } => "restarted",
        ExecutionEvent::Started { .. } => "started",
        ExecutionEvent::Output { .. } => "output",
        ExecutionEvent::Dropped { .. } => "dropped",
        ExecutionEvent::Result(_) => "result",
    }
}

fn encoded(form: Form, id: EventId, event: &ExecutionEvent) -> Bytes {
    let mut bytes = match form {
        Form::Ndjson => Vec::new(),
        // The JSON has no line break.
        Form::Sse => format!("event: {}\nid: {id}\ndata: ", name(event)).into_bytes(),
    };
    if let Err(error) = serde_json::to_writer(&mut bytes, event) {
        // Events always serialize; the line shows the error if one does not.
        let error = serde_json::json!({"error": error.to_string()});
        bytes.extend_from_slice(error.to_string().as_bytes());
    }
    bytes.extend_from_slice(match form {
        Form::Ndjson => b"\n",
        Form::Sse => b"\n\n",
    });
    bytes.into()
}
