//! Errors of the cache.

use std::io;
use std::path::{Path, PathBuf};

/// The cache of blobs failed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file could not be read or written. Free space, or set `CLOUDE_CACHE_DIR`.
    #[error("cache file `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file's digest is wrong. It has been deleted.
    #[error("cache file `{path}` was corrupt and has been deleted: try again")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// A malformed digest.
    #[error("invalid digest `{0}`: expected sha256: and 64 hexadecimal digits")]
    Digest(String),
    /// Cancelled while waiting for a lock.
    #[error("cancelled")]
    Cancelled,
}

/// Adds the path to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
    let path = path.to_owned();
    move |source| CacheError::Io { path, source }
}
