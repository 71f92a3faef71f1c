//! Why a command failed.

use std::fmt;

use cloude_initramfs_builder::pipeline::BuildError;
use cloude_initramfs_builder::store::StoreError;

/// Why a command failed, in one line.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    /// An ordinary failure: exit code 1.
    pub fn new(message: impl fmt::Display) -> Self {
        Failure {
            message: message.to_string(),
            code: 1,
        }
    }

    /// The command line makes no sense: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure {
            message: message.to_string(),
            code: 2,
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        // 128 and the number of SIGINT, as a shell says it.
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
