//! Errors of the jail.

use std::io;

use super::walls::Wall;

/// A wall that cannot be set up. The worker ends: it must not run a guest without it.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A wall that the caller asked for. [`Wall::fix`] says what the host needs.
    #[error("the jail's wall `{wall}`: {what}: {source}")]
    Wall {
        /// The wall.
        wall: Wall,
        /// The failed step.
        what: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// A step that works on every supported kernel.
    #[error("the jail: {what}: {source}")]
    Step {
        /// The failed step.
        what: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}

impl JailError {
    /// For `map_err` of a system call that belongs to `wall`.
    pub(super) fn wall<E: Into<io::Error>>(
        wall: Wall,
        what: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| JailError::Wall {
            wall,
            what,
            source: source.into(),
        }
    }

    /// For `map_err` of a step that belongs to no wall.
    pub(super) fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| JailError::Step {
            what,
            source: source.into(),
        }
    }
}

/// The result of a system call that returns a negative number for an error.
pub(super) fn check(result: impl Into<i64>) -> io::Result<()> {
    match result.into() {
        result if result < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
