//! Why a local image could not be read.

use std::io;
use std::path::PathBuf;

use crate::source::manifest::ManifestError;

/// Why a local image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file could not be read.
    #[error("reading `{path}`: {source}")]
    Io {
        /// The archive or a file of it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What an image of this kind must have is not there.
    #[error("`{path}` has no `{missing}`, so that it is no {kind}")]
    Missing {
        /// The image.
        path: PathBuf,
        /// The file.
        missing: String,
        /// What it was taken for.
        kind: &'static str,
    },
    /// Compressed as a whole.
    #[error("`{0}` is compressed as a whole; decompress it first, as with `gunzip`")]
    Compressed(PathBuf),
    /// A blob that is not the one of its digest.
    #[error("`{name}` in `{path}` is {actual}; the archive is damaged")]
    Mismatch {
        /// The image.
        path: PathBuf,
        /// The blob's name, or digest.
        name: String,
        /// What it is.
        actual: String,
    },
    /// A manifest or configuration.
    #[error("`{path}`: {source}")]
    Manifest {
        /// The image.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
}
