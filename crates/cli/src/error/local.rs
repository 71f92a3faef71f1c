//! Failures on this machine.

use std::io;
use std::path::PathBuf;

/// Something on this machine failed. Exit code 125.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// `cloude image` needs the other program.
    #[error(
        "cloude-initramfs is neither in the folder of cloude nor in PATH: build it with \
         `cargo build --release -p cloude-initramfs-builder`"
    )]
    NoInitramfsBuilder,
    /// execve(2) failed.
    #[error("cannot execute {}: {error}", program.display())]
    Execute { program: PathBuf, error: io::Error },
    /// No threads or no epoll instance for tokio.
    #[error("cannot start the asynchronous runtime: {error}")]
    Runtime { error: io::Error },
    /// Standard output is full or broken, but for EPIPE.
    #[error("cannot write to standard output: {error}")]
    Stdout { error: io::Error },
    /// The output did not serialize.
    #[error("cannot encode the output as JSON: {error}")]
    Json { error: serde_json::Error },
}
