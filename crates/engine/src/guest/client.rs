//! HTTP requests to the agent in a VM. The answers come from a machine that runs untrusted code, so every
//! size is bounded.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use cloude_protocol::agent::{Event, ExecuteRequest, NDJSON, WarmRequest, WarmResponse};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

use super::check::EventCheck;
use super::client_error::{AgentError, MAX_ERROR, refusal};
use crate::machine::AgentStream;

/// Bytes of an event besides its data.
const EVENT_OVERHEAD: usize = 64 << 10;
/// Bytes of an artifact in one event.
const ARTIFACT_DATA: usize = 256 << 10;
/// JSON writes a control character as six bytes, `\u0000`.
const ESCAPED: usize = 6;

/// The open connection of a finished execution.
///
/// Drop it after the VM has ended: closing it earlier makes worker and guest do work that nobody needs, while
/// the client waits for its answer.
pub struct Connection {
    _open: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

/// `POST /execute`: passes every event to `each`, and returns after [`Event::Finished`].
///
/// If the request has an identity, the agent must acknowledge it first ([`Event::Identity`]). Otherwise no
/// event reaches `each`, and the caller must kill the VM. Of each stream `each` receives at most the request's
/// `output_bytes` and 256 KiB, and artifacts only within the limits that the request has, with paths that stay below the
/// directory that they are joined to.
pub async fn execute(
    stream: Box<dyn AgentStream>,
    token: &str,
    request: &ExecuteRequest,
    mut each: impl FnMut(Event),
) -> Result<Connection, AgentError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = Box::pin(connection);
    let exchange = async {
        let body = serde_json::to_vec(request)?;
        let request_head = Request::builder()
            .method(Method::POST)
            .uri("/execute")
            .header(HOST, "agent")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, NDJSON)
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request_head).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let mut check = EventCheck::new(request);
        let mut each = |event| {
            check.accept(&event)?;
            each(event);
            Ok(())
        };
        let max_line = max_line(request);
        read_events(response.into_body(), max_line, &mut each).await
    };
    // Polled here and not in a task, so that the connection ends with this future.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result?,
        ended = &mut connection => {
            ended?;
            // The peer closed; bytes that it sent before are still in the buffer.
            exchange.await?;
        }
    }
    Ok(Connection { _open: connection })
}

/// The connection on which a template was warmed. The saved agent waits on it for the next request, so it must
/// stay open until the VM is saved.
#[must_use = "dropping it closes the connection, which the snapshot needs"]
pub struct WarmConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for WarmConnection {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// `POST /warm`: the agent of a template compiles caches, runs the warm-up program and starts the runner (an
/// interpreter that waits for a program).
pub async fn warm(
    stream: Box<dyn AgentStream>,
    token: &str,
    request: &WarmRequest,
) -> Result<(WarmResponse, WarmConnection), AgentError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move {
        // An error reaches the request below, too.
        let _ = connection.await;
    });
    // From here on dropping `warm` ends the task.
    let mut warm = WarmConnection { sender, connection };
    let body = serde_json::to_vec(request)?;
    let head = Request::builder()
        .method(Method::POST)
        .uri("/warm")
        .header(HOST, "agent")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = warm.sender.send_request(head).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = Limited::new(response.into_body(), MAX_ERROR)
        .collect()
        .await
        .map_err(|_| AgentError::Incomplete)?;
    Ok((serde_json::from_slice(&body.to_bytes())?, warm))
}

fn max_line(request: &ExecuteRequest) -> usize {
    let artifact = request.artifacts.as_ref().map_or(0, |_| ARTIFACT_DATA);
    let compile = request.compile.as_ref();
    let compile = compile.map_or(0, |stage| stage.output_bytes);
    usize::try_from(request.run.output_bytes.max(compile))
        .unwrap_or(usize::MAX)
        .max(64 << 10)
        .max(artifact)
        .saturating_mul(ESCAPED)
        .saturating_add(EVENT_OVERHEAD)
}

async fn read_events(
    mut body: Incoming,
    max_line: usize,
    each: &mut impl FnMut(Event) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        // The part before was searched for the end of a line already.
        let mut searched = buffer.len();
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(searched + end + 1);
            searched = 0;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let event: Event = serde_json::from_slice(&line)?;
            let finished = matches!(event, Event::Finished(_));
            each(event)?;
            if finished {
                return Ok(());
            }
        }
        if buffer.len() > max_line {
            return Err(AgentError::TooLong(max_line));
        }
    }
    Err(AgentError::Incomplete)
}

#[cfg(test)]
mod tests;
