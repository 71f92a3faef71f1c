//! The error of a command.

use std::fmt;

use cloude_initramfs_builder::pipeline::BuildError;
use cloude_initramfs_builder::store::StoreError;

/// Message and exit code of a failed command.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    /// Exit code 1.
    pub fn new(message: impl fmt::Display) -> Self {
        Failure {
            message: message.to_string(),
            code: 1,
        }
    }

    /// A wrong command line: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure {
            message: message.to_string(),
            code: 2,
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        // 128 + SIGINT.
        let code = if matches!(error, BuildError::Cancelled) {
            130
        } else {
            1
        };
        Failure {
            message: error.to_string(),
            code,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::new(error)
    }
}
