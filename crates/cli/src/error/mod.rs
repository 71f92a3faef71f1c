//! Everything that ends a command without the program's result: one enum per origin, each with its exit code. The test in `table.rs` prints all of them.

mod backend;
mod field;
mod local;
mod outcome;
mod usage;

#[cfg(test)]
mod table;

pub use backend::BackendError;
pub use local::LocalError;
pub use outcome::{Ending, ExecutionError, Subject};
pub use usage::{QuantityError, UsageError};

use crate::exit;

/// A command that ended without the program's result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line is wrong, or names something that does not exist.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The backend is unreachable, refused the request or answered nonsense.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The backend could not run the program to its end.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// Something on this machine failed.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The reader of standard output is gone (EPIPE). Never printed.
    #[error("nobody reads standard output any more")]
    BrokenPipe,
}

impl CliError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => exit::USAGE,
            CliError::Backend(error) => error.exit_code(),
            CliError::Execution(_) | CliError::Local(_) => exit::INFRASTRUCTURE,
            CliError::BrokenPipe => exit::BROKEN_PIPE,
        }
    }
}
