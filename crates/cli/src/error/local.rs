//! Failures on this machine.

use std::io;
use std::path::PathBuf;

/// Something on this machine failed. Exit code 125.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// tcsetattr(3) failed.
    #[error("cannot change the mode of the terminal: {error}")]
    Terminal { error: io::Error },
    /// `cloude image` needs the other program.
    #[error(
        "cloude-initramfs is neither in the folder of cloude nor in PATH: build it with \
         `cargo build --release -p cloude-initramfs-builder`"
    )]
    NoInitramfsBuilder,
    /// execve(2) failed.
    #[error("cannot execute {}: {error}", program.display())]
    Execute { program: PathBuf, error: io::Error },
    /// `cloude man`.
    #[error("cannot write the manual pages to {}: {error}", dir.display())]
    Man { dir: PathBuf, error: io::Error },
    /// No threads or no epoll instance for tokio.
    #[error("cannot start the asynchronous runtime: {error}")]
    Runtime { error: io::Error },
    /// Standard output is full or broken, but for EPIPE.
    #[error("cannot write to standard output: {error}")]
    Stdout { error: io::Error },
    /// A path of an artifact that is absolute, empty or has `..`. A correct backend sends none.
    #[error(
        "the backend sent an artifact with the path {path:?}, which is outside of the folder: not saved"
    )]
    ArtifactPath { path: String },
    /// Without `--force` no file is overwritten. Programs choose the names of artifacts, so that they are shown escaped.
    #[error(
        "{path:?} exists: name another folder with --artifact-dir, or overwrite it with --force"
    )]
    ArtifactExists { path: PathBuf },
    /// open(2), write(2) or rename(2) failed. A symbolic link instead of a folder is ELOOP or ENOTDIR.
    #[error("cannot save the artifact {path:?}: {error}")]
    ArtifactWrite { path: PathBuf, error: io::Error },
    /// The output did not serialize.
    #[error("cannot encode the output as JSON: {error}")]
    Json { error: serde_json::Error },
}
