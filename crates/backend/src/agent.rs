//! Speaks to the agent in a VM. What it answers comes out of a machine that ran untrusted code, so
//! every size is bounded.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use cloude_protocol::agent::{ErrorBody, Event, ExecuteRequest, NDJSON, WarmRequest, WarmResponse};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use crate::vm::AgentStream;

/// How long an answer that is an error may be, in bytes.
const MAX_ERROR: usize = 64 << 10;
/// Beside an event's data: its names and numbers, in bytes.
const EVENT_OVERHEAD: usize = 64 << 10;
/// JSON's worst: a control character becomes `\u0000`.
const ESCAPED: usize = 6;

/// Why the agent's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The connection failed or ended early.
    #[error("the connection to the agent failed: {0}")]
    Connection(#[from] hyper::Error),
    /// It refused the request.
    #[error("the agent refused the execution ({status}): {message}")]
    Refused {
        /// HTTP.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Its stream ended without a result.
    #[error("the agent's answer ended without a result")]
    Incomplete,
    /// A line is longer than any event can be.
    #[error("the agent sent an event over {0} bytes")]
    TooLong(usize),
    /// A line is no event.
    #[error("the agent sent what is no event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A fork did not say first that it has its identity, or a VM that was given none said so. Nothing
    /// that it sends is of any use: it is not known to be a VM of its own.
    #[error("the agent did not acknowledge its identity before anything else")]
    Identity,
    /// The request could not be made.
    #[error("asking the agent: {0}")]
    Request(#[from] hyper::http::Error),
}

impl AgentError {
    /// Did the agent refuse the request for what is in it? A token or an identity that it does not take (401,
    /// 403), and a VM that runs nothing any more (409), are no fault of the request's.
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

    /// Did the connection end, rather than the agent say something wrong?
    pub fn is_connection(&self) -> bool {
        matches!(self, AgentError::Connection(_) | AgentError::Incomplete)
    }
}

/// The connection over which something was executed, open still.
///
/// Where it closes the VM's worker and the guest have something to do, on the processors that the answer to
/// the client needs, and for nothing: the VM ends.
pub struct Connection {
    _open: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

/// Sends the request, and gives every event to `each`; returns after [`Event::Finished`].
///
/// With an identity in the request the agent's acknowledgement, [`Event::Identity`], must come first. Without
/// it nothing reaches `each`, and the caller has to kill the VM.
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
        let output = request.run.output_bytes;
        let mut acknowledged = request.identity.is_none();
        let mut each = |event| match (event, acknowledged) {
            (Event::Identity, false) => {
                acknowledged = true;
                each(Event::Identity);
                Ok(())
            }
            (Event::Identity, true) | (_, false) => Err(AgentError::Identity),
            (event, true) => {
                each(event);
                Ok(())
            }
        };
        read_events(response.into_body(), max_line(output), &mut each).await
    };
    // The connection is driven here, not in a task of its own, so that it ends with this future.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result?,
        ended = &mut connection => {
            ended?;
            // The other side closed: what it sent before is still to be read.
            exchange.await?;
        }
    }
    Ok(Connection { _open: connection })
}

/// A connection over which a template was warmed. The agent waits on it for the next request, so it has
/// to be held until the VM is saved.
#[must_use = "dropped, it closes, and the VM's snapshot has no connection"]
pub struct Held {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Has a template's agent warm it.
pub async fn warm(
    stream: Box<dyn AgentStream>,
    token: &str,
    request: &WarmRequest,
) -> Result<(WarmResponse, Held), AgentError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move {
        // What is wrong with it, the request says.
        let _ = connection.await;
    });
    // From here on the task ends with this.
    let mut held = Held { sender, connection };
    let body = serde_json::to_vec(request)?;
    let head = Request::builder()
        .method(Method::POST)
        .uri("/warm")
        .header(HOST, "agent")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = held.sender.send_request(head).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = Limited::new(response.into_body(), MAX_ERROR)
        .collect()
        .await
        .map_err(|_| AgentError::Incomplete)?;
    Ok((serde_json::from_slice(&body.to_bytes())?, held))
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
        // Only what is new is searched for the end of a line.
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
