//! HTTP requests to the agent in a VM. The answers come from a machine that runs untrusted code, so every
//! size is bounded.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use cloude_protocol::agent::{
    ErrorBody, Event, ExecuteRequest, NDJSON, StageName, Stream, WarmRequest, WarmResponse,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use crate::machine::AgentStream;

/// The longest error body, in bytes.
const MAX_ERROR: usize = 64 << 10;
/// Bytes of an event besides its data.
const EVENT_OVERHEAD: usize = 64 << 10;
/// Bytes that a stream may exceed its limit by: the agent rounds its head and its tail to whole chunks.
const OUTPUT_SLACK: u64 = 256 << 10;
/// JSON writes a control character as six bytes, `\u0000`.
const ESCAPED: usize = 6;

/// A request to the agent that failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The connection failed or closed early.
    #[error("the connection to the agent failed: {0}")]
    Connection(#[from] hyper::Error),
    /// The agent answered with an error status.
    #[error("the agent refused the request ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The message of the body.
        message: String,
    },
    /// The event stream ended before [`Event::Finished`].
    #[error("the agent's answer ended without a result")]
    Incomplete,
    /// A line is longer than the longest possible event.
    #[error("the agent sent an event over {0} bytes")]
    TooLong(usize),
    /// A stage's stream is longer than `output_bytes` of the run stage. The agent respects the limit; a guest
    /// kernel that was taken over may not.
    #[error("the guest sent more output than its limit")]
    TooMuchOutput,
    /// A line is not an event.
    #[error("the agent sent an invalid event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The first event of a fork was not [`Event::Identity`], or a VM that received no identity sent one. The
    /// VM may still be an exact copy of others, so its output must not be used.
    #[error("the agent did not acknowledge its identity before anything else")]
    Identity,
    /// The request could not be built.
    #[error("building the request to the agent: {0}")]
    Request(#[from] hyper::http::Error),
}

impl AgentError {
    /// True if the request itself was invalid. A refused token or identity (401, 403) and a VM that runs
    /// nothing any more (409) are not the request's fault.
    pub fn is_refused_request(&self) -> bool {
        matches!(
            self,
            AgentError::Refused {
                status: 400..=499,
                ..
            }
        ) && !matches!(
            self,
            AgentError::Refused {
                status: 401 | 403 | 409,
                ..
            }
        )
    }

    /// True if the connection ended, which usually means that the VM did.
    pub fn is_connection(&self) -> bool {
        matches!(self, AgentError::Connection(_) | AgentError::Incomplete)
    }
}

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
/// `output_bytes` and 256 KiB.
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
        let max_line = max_line(request.run.output_bytes);
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

/// Refuses events that a well-behaved agent does not send.
struct EventCheck {
    /// The VM has its identity, or needs none.
    acknowledged: bool,
    /// Bytes that each stream of each stage may still send.
    left: [[u64; 2]; 2],
}

impl EventCheck {
    fn new(request: &ExecuteRequest) -> Self {
        let limit = request.run.output_bytes.saturating_add(OUTPUT_SLACK);
        EventCheck {
            acknowledged: request.identity.is_none(),
            left: [[limit; 2]; 2],
        }
    }

    fn accept(&mut self, event: &Event) -> Result<(), AgentError> {
        let is_identity = matches!(event, Event::Identity);
        if is_identity == self.acknowledged {
            return Err(AgentError::Identity);
        }
        self.acknowledged = true;
        if let Event::Output {
            stage,
            stream,
            data,
        } = event
        {
            let stage = usize::from(*stage == StageName::Run);
            let stream = usize::from(*stream == Stream::Stderr);
            let left = &mut self.left[stage][stream];
            *left = left
                .checked_sub(data.0.len() as u64)
                .ok_or(AgentError::TooMuchOutput)?;
        }
        Ok(())
    }
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

fn max_line(output_bytes: u64) -> usize {
    usize::try_from(output_bytes)
        .unwrap_or(usize::MAX)
        .max(64 << 10)
        .saturating_mul(ESCAPED)
        .saturating_add(EVENT_OVERHEAD)
}

async fn refusal(response: Response<Incoming>) -> AgentError {
    let status = response.status().as_u16();
    let message = match Limited::new(response.into_body(), MAX_ERROR)
        .collect()
        .await
    {
        Ok(body) => {
            let bytes = body.to_bytes();
            serde_json::from_slice::<ErrorBody>(&bytes).map_or_else(
                |_| String::from_utf8_lossy(&bytes).into_owned(),
                |body| body.error,
            )
        }
        Err(error) => error.to_string(),
    };
    AgentError::Refused { status, message }
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
