//! What can go wrong, and the exit code of each. docs/cli.md lists them.

use cloude_protocol::agent::ErrorBody;

/// What was typed is wrong, or the backend refused it as such. Nothing ran.
pub const USAGE: u8 = 2;
/// A time limit ended the program, as with `timeout(1)`.
pub const TIMEOUT: u8 = 124;
/// The program did not run to its end, and that was not its doing, as with `docker run`.
pub const INFRASTRUCTURE: u8 = 125;
/// What a shell reports for a signal is this and the signal's number.
pub const SIGNAL_BASE: u8 = 128;
/// Ctrl-C: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Whoever read our output has gone: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Why a command ended without the program's own result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was typed is wrong; the message says what to type instead.
    #[error("{0}")]
    Usage(String),
    /// The machine, the network or the backend failed; the message says what to look at.
    #[error("{0}")]
    Infrastructure(String),
    /// The backend answered with an error.
    #[error("{}", refusal(*status, message, *retry_after))]
    Refused {
        /// HTTP status code.
        status: u16,
        /// The backend's own words.
        message: String,
        /// Seconds, from a `Retry-After` header.
        retry_after: Option<u64>,
    },
    /// Whoever read our output has gone. Not worth a word.
    #[error("broken pipe")]
    BrokenPipe,
}

impl CliError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => USAGE,
            CliError::Infrastructure(_) => INFRASTRUCTURE,
            // The request was at fault: 429 and 5xx were not.
            CliError::Refused {
                status: 400 | 404 | 413 | 415 | 422,
                ..
            } => USAGE,
            CliError::Refused { .. } => INFRASTRUCTURE,
            CliError::BrokenPipe => BROKEN_PIPE,
        }
    }

    /// Turns the body of an answer that is an error into one.
    pub fn from_answer(status: u16, body: &[u8], retry_after: Option<u64>, url: &str) -> Self {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => CliError::Refused {
                status,
                message: body.error,
                retry_after,
            },
            Err(_) => CliError::Infrastructure(format!(
                "{url} answered with HTTP status {status}, but not as a Cloude backend does: \
                 check --backend (CLOUDE_BACKEND)"
            )),
        }
    }
}

fn refusal(status: u16, message: &str, retry_after: Option<u64>) -> String {
    match (status, retry_after) {
        (429, Some(seconds)) => {
            format!("the backend is busy: {message} (try again in {seconds} s)")
        }
        (429, None) => format!("the backend is busy: {message}"),
        (500.., _) => format!("the backend failed: {message}"),
        _ => message.to_owned(),
    }
}
