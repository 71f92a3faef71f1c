//! Output and artifacts of an execution as bytes.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cloude_protocol::Data;
use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{Artifact, Execution};
use futures_util::stream;
use serde::Deserialize;

use super::error::{ApiError, RequestError};
use super::extract::{ApiPath, ApiQuery};
use super::peer::Peer;
use crate::jobs::{Content, Found, Pin, Service};
use crate::keys::Caller;
use crate::store::output_of;

/// Bytes of one piece of a response.
const PIECE: usize = 64 << 10;

/// The query of a stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageQuery {
    stage: Option<StageName>,
}

/// `GET /v1/executions/{id}/stdout`
pub async fn stdout(
    state: State<Service>,
    peer: Extension<Arc<Peer>>,
    caller: Extension<Caller>,
    id: ApiPath<String>,
    stage: ApiQuery<StageQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    output(state, peer, caller, id, (stage, Stream::Stdout), headers).await
}

/// `GET /v1/executions/{id}/stderr`
pub async fn stderr(
    state: State<Service>,
    peer: Extension<Arc<Peer>>,
    caller: Extension<Caller>,
    id: ApiPath<String>,
    stage: ApiQuery<StageQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    output(state, peer, caller, id, (stage, Stream::Stderr), headers).await
}

async fn output(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
    (ApiQuery(query), stream): (ApiQuery<StageQuery>, Stream),
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stage = query.stage.unwrap_or(StageName::Run);
    let pin = service.pins().pin(peer.closer());
    let source = match service.find(&caller, &id).await? {
        None => return Err(RequestError::unknown_execution(&id).into()),
        Some(Found::Ended(execution)) => {
            pin.hold(Some(&execution), 0);
            Source::Output(execution, stage, stream)
        }
        Some(Found::Unfinished(job)) => {
            let bytes = job.output(stage, stream);
            pin.hold(None, bytes.len());
            Source::Memory(bytes)
        }
        Some(Found::Stored(_)) => Source::Memory(Bytes::new()),
    };
    respond(source, pin, &headers)
}

/// `GET /v1/executions/{id}/artifacts`
pub async fn artifacts(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Vec<Artifact>>, ApiError> {
    Ok(Json(ended(&service, &caller, &id).await?.artifacts.clone()))
}

/// `GET /v1/executions/{id}/artifacts/{path}`
pub async fn artifact(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath((id, path)): ApiPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let execution = ended(&service, &caller, &id).await?;
    let artifacts = &execution.artifacts;
    let Some(index) = artifacts.iter().position(|file| file.path == path) else {
        return Err(RequestError::unknown_artifact(&id, &path).into());
    };
    let pin = service.pins().pin(peer.closer());
    let source = match service.artifact(&execution, index) {
        Content::Memory(bytes) => {
            pin.hold(None, bytes.len());
            Source::Memory(bytes)
        }
        Content::Stored(stream) => Source::Stored {
            service,
            id,
            stream,
            bytes: artifacts[index].bytes,
        },
    };
    let mut response = respond(source, pin, &headers)?;
    // A browser must neither show nor run what a program wrote.
    let headers = response.headers_mut();
    let attachment = HeaderValue::from_static("attachment");
    headers.insert(CONTENT_DISPOSITION, attachment);
    Ok(response)
}

async fn ended(service: &Service, caller: &Caller, id: &str) -> Result<Arc<Execution>, ApiError> {
    match service.find(caller, id).await? {
        None => Err(RequestError::unknown_execution(id).into()),
        Some(Found::Ended(execution)) => Ok(execution),
        Some(Found::Unfinished(_) | Found::Stored(_)) => Err(RequestError::NotEnded.into()),
    }
}

/// Bytes that a response is made of, piece by piece.
enum Source {
    Memory(Bytes),
    Output(Arc<Execution>, StageName, Stream),
    Stored {
        service: Service,
        id: String,
        stream: i64,
        bytes: u64,
    },
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Output(execution, stage, stream) => {
                output_of(execution, *stage, *stream).0.len() as u64
            }
            Source::Stored { bytes, .. } => *bytes,
        }
    }

    /// At least one byte from `at` on, at most up to `end`.
    async fn piece(&self, at: u64, end: u64) -> io::Result<Bytes> {
        let cut = |start: u64, length: usize| {
            let from = (at - start) as usize;
            from..length.min(from + PIECE).min((end - start) as usize)
        };
        match self {
            Source::Memory(bytes) => Ok(bytes.slice(cut(0, bytes.len()))),
            Source::Output(execution, stage, stream) => {
                let Data(bytes) = output_of(execution, *stage, *stream);
                Ok(Bytes::copy_from_slice(&bytes[cut(0, bytes.len())]))
            }
            Source::Stored {
                service,
                id,
                stream,
                ..
            } => {
                let part = service.stored_part(id, *stream, at).await;
                let part = part.map_err(io::Error::other)?;
                let (start, bytes) = part
                    .filter(|(start, bytes)| at < start + bytes.len() as u64)
                    .ok_or_else(|| io::Error::other("the execution was removed"))?;
                // The whole part, so that it is read once.
                let range = (at - start) as usize..bytes.len().min((end - start) as usize);
                Ok(bytes.slice(range))
            }
        }
    }
}

/// The range of one `bytes` range (RFC 9110, 14.1.2); `None` for the whole: without the header, or if it is something else.
fn range(headers: &HeaderMap, bytes: u64) -> Result<Option<(u64, u64)>, RequestError> {
    let value = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let Some(text) = value.and_then(|value| value.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let Some((first, last)) = text.trim().split_once('-') else {
        return Ok(None);
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => return Ok(None),
        (Ok(first), Ok(last)) => (first, last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => (first, bytes),
        (Err(_), Ok(suffix)) if first.is_empty() => (
            bytes
                .saturating_sub(suffix)
                .max(u64::from(suffix == 0) * bytes),
            bytes,
        ),
        _ => return Ok(None),
    };
    match first < bytes {
        true => Ok(Some((first, last.min(bytes)))),
        false => Err(RequestError::Range { bytes }),
    }
}

fn respond(source: Source, pin: Pin, headers: &HeaderMap) -> Result<Response, ApiError> {
    let bytes = source.len();
    let range = match range(headers, bytes) {
        Ok(range) => range,
        Err(error) => {
            let mut response = ApiError::from(error).into_response();
            insert(&mut response, CONTENT_RANGE, format!("bytes */{bytes}"));
            return Ok(response);
        }
    };
    let (first, end) = range.unwrap_or((0, bytes));
    let pieces = stream::unfold((source, pin, first), move |(source, pin, at)| async move {
        if at >= end {
            return None;
        }
        pin.taken();
        let piece = source.piece(at, end).await;
        // After an error the client sees an incomplete response.
        let next = piece.as_ref().map_or(end, |piece| at + piece.len() as u64);
        Some((piece, (source, pin, next)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    insert(&mut response, CONTENT_LENGTH, (end - first).to_string());
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = end - 1;
        insert(
            &mut response,
            CONTENT_RANGE,
            format!("bytes {first}-{last}/{bytes}"),
        );
    }
    for (name, value) in [
        (CONTENT_TYPE, "application/octet-stream"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ACCEPT_RANGES, "bytes"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn insert(response: &mut Response, name: axum::http::HeaderName, value: String) {
    // Numbers alone.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_within_the_bytes() {
        let of = |text: &str, bytes| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            range(&headers, bytes).map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=2-", Some((2, 10))),
            ("bytes=2-99", Some((2, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-99", Some((0, 10))),
            // Not understood: the whole.
            ("bytes=3-2", None),
            ("bytes=0-1,4-5", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(of(text, 10).unwrap(), expected, "{text}");
        }
        for text in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
            assert!(of(text, 10).is_err(), "{text}");
        }
        assert!(of("bytes=0-", 0).is_err());
    }
}
