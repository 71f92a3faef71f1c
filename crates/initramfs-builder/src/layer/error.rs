//! Errors of reading a layer.

use std::io;
use std::path::PathBuf;

use crate::limits::LimitExceeded;

/// A layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The layer exceeds a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The tar archive is malformed, or an entry cannot be in an initramfs.
    #[error("entry {entry} of the layer, `{path}`: {problem}")]
    Entry {
        /// Number of the entry, from 1.
        entry: u64,
        /// Its path as far as it is known.
        path: String,
        /// The problem.
        problem: String,
    },
    /// The input could not be read or decompressed.
    #[error("cannot read the layer: {0}")]
    Read(#[source] io::Error),
    /// The temporary file failed. Free space, or choose another cache directory.
    #[error("temporary file in `{dir}`: {source}; free space, or set CLOUDE_CACHE_DIR")]
    Spool {
        /// Directory of the temporary file.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The digest differs from `rootfs.diff_ids` of the image's configuration.
    #[error(
        "the uncompressed layer is {actual}, and the image's configuration names {expected}: pull the image again, or report it to its publisher"
    )]
    DiffId {
        /// From the image's configuration.
        expected: String,
        /// Computed.
        actual: String,
    },
}
