//! Errors of requests to the agent.

use cloude_protocol::agent::ErrorBody;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;

/// The longest error body, in bytes.
pub(super) const MAX_ERROR: usize = 64 << 10;

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
    /// The event stream ended before [`Event::Finished`](cloude_protocol::agent::Event::Finished).
    #[error("the agent's answer ended without a result")]
    Incomplete,
    /// A line is longer than the longest possible event.
    #[error("the agent sent an event over {0} bytes")]
    TooLong(usize),
    /// A stage's stream is longer than `output_bytes` of the run stage. The agent respects the limit; a guest
    /// kernel that was taken over may not.
    #[error("the guest sent more output than its limit")]
    TooMuchOutput,
    /// An artifact that a well-behaved agent does not send.
    #[error("the guest sent an artifact that is refused: {0}")]
    Artifact(&'static str),
    /// A line is not an event.
    #[error("the agent sent an invalid event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The first event of a fork was not [`Event::Identity`](cloude_protocol::agent::Event::Identity), or a VM that
    /// received no identity sent one. The VM may still be an exact copy of others, so its output must not be used.
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

/// The error of an answer that is not a success.
pub(super) async fn refusal(response: Response<Incoming>) -> AgentError {
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
