//! Requests to the backend that failed.

use cloude_protocol::agent::{ErrorBody, NDJSON};
use cloude_protocol::api::Problem;

use crate::exit;

/// A request that did not get the answer it should have.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// reqwest could not set up TLS or its connection pool.
    #[error("cannot set up the HTTP client: {reason}")]
    HttpClient { reason: String },
    /// The request did not serialize.
    #[error("cannot encode the request as JSON: {reason}")]
    Encode { reason: String },
    /// No TCP or TLS connection.
    #[error(
        "cannot connect to the backend at {url} ({reason}): start it with `clouded`, or name another one \
         with --backend or CLOUDE_BACKEND"
    )]
    Connect { url: String, reason: String },
    /// The connection was made and no HTTP response came.
    #[error("the backend at {url} did not answer ({reason}): look into the log of clouded")]
    NoAnswer { url: String, reason: String },
    /// The connection broke in the middle of the response.
    #[error(
        "the connection to {url} broke before the result arrived ({reason}): run the command again"
    )]
    Broken { url: String, reason: String },
    /// The event stream ended without its last event.
    #[error(
        "the backend at {url} closed the connection before the result arrived: look into the log of clouded"
    )]
    Closed { url: String },
    /// Something else than clouded, or another version of it.
    #[error(
        "{url} answered with Content-Type {found:?} instead of {NDJSON}: check that --backend (CLOUDE_BACKEND) \
         is a clouded of version {version}"
    )]
    ContentType {
        url: String,
        found: String,
        version: &'static str,
    },
    /// A body or an event that is not the JSON of this version.
    #[error(
        "{url} sent JSON that this version does not understand ({reason}): check that --backend \
         (CLOUDE_BACKEND) is a clouded of version {version}"
    )]
    Body {
        url: String,
        reason: String,
        version: &'static str,
    },
    /// An error status whose body is neither a [`Problem`] nor an [`ErrorBody`]: a proxy, or another program.
    #[error(
        "{url} answered HTTP status {status}, and not as clouded does: check --backend (CLOUDE_BACKEND), \
         and HTTP proxies on the way"
    )]
    NotClouded { url: String, status: u16 },
    /// 429.
    #[error("the backend is busy: {message}{}", retry(*retry_after_s))]
    Busy {
        message: String,
        /// From the `Retry-After` header.
        retry_after_s: Option<u64>,
    },
    /// 5xx.
    #[error("the backend failed (HTTP status {status}): {message}")]
    Failed { status: u16, message: String },
    /// 401.
    #[error("{message}{}", key_hint(*has_key))]
    Unauthorized {
        message: String,
        /// An API key was sent.
        has_key: bool,
    },
    /// Any other error status.
    #[error("{message}")]
    Refused { status: u16, message: String },
}

impl BackendError {
    /// From the response's status, body and `Retry-After`.
    pub fn from_response(status: u16, body: &[u8], retry_after_s: Option<u64>, url: &str) -> Self {
        // Servers before problem documents sent the other form.
        let problem = serde_json::from_slice(body).map(|problem: Problem| problem.detail);
        let message =
            problem.or_else(|_| serde_json::from_slice(body).map(|body: ErrorBody| body.error));
        let Ok(message) = message else {
            let url = url.to_owned();
            return BackendError::NotClouded { url, status };
        };
        match status {
            401 => BackendError::Unauthorized {
                message,
                has_key: false,
            },
            429 => BackendError::Busy {
                message,
                retry_after_s,
            },
            500.. => BackendError::Failed { status, message },
            _ => BackendError::Refused { status, message },
        }
    }

    /// Adds whether the request had an API key.
    pub fn about_key(self, sent: bool) -> Self {
        match self {
            BackendError::Unauthorized { message, .. } => BackendError::Unauthorized {
                message,
                has_key: sent,
            },
            other => other,
        }
    }

    /// 2 if the request was at fault, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            BackendError::Refused {
                status: 400 | 403 | 404 | 413 | 415 | 421 | 422,
                ..
            }
            | BackendError::Unauthorized { .. } => exit::USAGE,
            _ => exit::INFRASTRUCTURE,
        }
    }
}

fn key_hint(has_key: bool) -> &'static str {
    match has_key {
        true => " (the key is that of --key-file, else of CLOUDE_API_KEY)",
        false => ": put one into CLOUDE_API_KEY, or name its file with --key-file",
    }
}

fn retry(after_s: Option<u64>) -> String {
    after_s.map_or_else(
        || "; try again later".to_owned(),
        |seconds| format!("; try again in {seconds} s"),
    )
}
