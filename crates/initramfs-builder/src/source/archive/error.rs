//! Errors of local images.

use std::io;
use std::path::PathBuf;

use crate::source::manifest::ManifestError;

/// A local image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file could not be read.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The archive, or a file of it.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file that every image of this kind has.
    #[error("`{path}` is not a valid {kind}: `{missing}` is missing")]
    Missing {
        /// The image.
        path: PathBuf,
        /// The file.
        missing: String,
        /// The kind of image that was expected.
        kind: &'static str,
    },
    /// The archive is compressed as a whole.
    #[error("`{0}` is compressed: decompress it first, for example with `gunzip`")]
    Compressed(PathBuf),
    /// A blob with a wrong digest.
    #[error("`{path}` is damaged: `{name}` has digest {actual}")]
    Mismatch {
        /// The image.
        path: PathBuf,
        /// The blob's name, or digest.
        name: String,
        /// The computed digest.
        actual: String,
    },
    /// A malformed manifest or configuration.
    #[error("`{path}`: {source}")]
    Manifest {
        /// The image.
        path: PathBuf,
        /// The reason.
        source: ManifestError,
    },
}
