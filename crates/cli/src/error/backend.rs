//! Requests to the backend that failed.

use cloude_protocol::agent::ErrorBody;
use cloude_protocol::api::Problem;

use super::field::option;
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
    /// A close frame before the last event. `reason` is that of the frame.
    #[error("the backend at {url} closed the connection: {reason}")]
    Detached { url: String, reason: String },
    /// Something else than clouded, or another version of it.
    #[error(
        "{url} answered with Content-Type {found:?} instead of {expected}: check that --backend (CLOUDE_BACKEND) \
         is a clouded of version {version}"
    )]
    ContentType {
        url: String,
        found: String,
        expected: &'static str,
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
    /// 503: the server stops, or its store cannot write.
    #[error("the backend cannot take requests now: {message}{}", retry(*retry_after_s))]
    Unavailable {
        message: String,
        /// From the `Retry-After` header.
        retry_after_s: Option<u64>,
    },
    /// Another 5xx.
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
    #[error("{}{message}", about(field.as_deref(), message))]
    Refused {
        status: u16,
        message: String,
        /// The field of the request body that is wrong.
        field: Option<String>,
    },
}

impl BackendError {
    /// From the response's status, body and `Retry-After`.
    pub fn from_response(status: u16, body: &[u8], retry_after_s: Option<u64>, url: &str) -> Self {
        // The original endpoints send an `ErrorBody`, those below /v1 a `Problem`.
        let (message, field) = match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => (problem.detail, problem.field),
            Err(_) => match serde_json::from_slice::<ErrorBody>(body) {
                Ok(body) => (body.error, None),
                Err(_) => {
                    let url = url.to_owned();
                    return BackendError::NotClouded { url, status };
                }
            },
        };
        // One line, and nothing that a terminal obeys.
        let message = message.replace(char::is_control, " ");
        match status {
            401 => BackendError::Unauthorized {
                message,
                has_key: false,
            },
            429 => BackendError::Busy {
                message,
                retry_after_s,
            },
            503 => BackendError::Unavailable {
                message,
                retry_after_s,
            },
            500.. => BackendError::Failed { status, message },
            _ => BackendError::Refused {
                status,
                message,
                field,
            },
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
        true => " (`cloude config` shows where the key comes from)",
        false => ": put one into CLOUDE_API_KEY, or name its file with --key-file",
    }
}

/// The option that the wrong field comes from, else the field unless the message has it.
fn about(field: Option<&str>, message: &str) -> String {
    let Some(field) = field else {
        return String::new();
    };
    match option(field) {
        Some(option) => format!("{option}: "),
        None if message.contains(field) => String::new(),
        None => format!("{}: ", field.escape_debug()),
    }
}

fn retry(after_s: Option<u64>) -> String {
    after_s.map_or_else(
        || "; try again later".to_owned(),
        |seconds| format!("; try again in {seconds} s"),
    )
}
