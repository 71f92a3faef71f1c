//! Errors of the engine.

use cloude_protocol::agent::Cause;

use crate::admission::QueueFull;

/// A VM that could not be started, or that ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// [`Cause::GuestPanic`], [`Cause::Cancelled`] or [`Cause::Infrastructure`].
    pub cause: Cause,
    /// The failed operation and its reason, often with the last lines of the guest's console.
    pub message: String,
}

impl Failure {
    /// A failure of the host or of Cloude, not of the guest.
    pub fn infrastructure(message: impl Into<String>) -> Self {
        Failure {
            cause: Cause::Infrastructure,
            message: message.into(),
        }
    }

    /// The engine shuts down.
    pub fn shutting_down() -> Self {
        Failure::cancelled("cancelled: the server is shutting down")
    }

    /// The caller cancelled the execution. The message names who did, where the caller knows.
    pub fn cancelled(message: &str) -> Self {
        Failure {
            cause: Cause::Cancelled,
            message: message.into(),
        }
    }
}

/// A template that was not built or not removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// This configuration or this machine has no templates; the message names the reason.
    #[error("{0}")]
    Impossible(String),
    /// A template cannot be removed during its build.
    #[error("the template is being built; try again when it is ready")]
    Building,
    /// As many builds run or wait as the configuration allows templates.
    #[error("`pool.templates` limits the builds at once, and as many are running; try again later")]
    TooManyBuilds,
    /// The queue has no slot for the build's VM.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// The build's VM or the disk failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
