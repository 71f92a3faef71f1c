//! Why the cache failed.

use std::io;
use std::path::{Path, PathBuf};

/// Why the cache failed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file of it could not be read or written. Make room, or set `CLOUDE_CACHE_DIR`.
    #[error("the cache, `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes on the disk are no longer what they were. They have been deleted.
    #[error("`{path}` was corrupt and has been deleted; try again")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// Not the form of a digest.
    #[error("`{0}` is no digest; sha256: and 64 hexadecimal digits are the only kind known")]
    Digest(String),
    /// Cancelled while waiting for another process.
    #[error("cancelled")]
    Cancelled,
}

/// Says which file an error is about.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
    let path = path.to_owned();
    move |source| CacheError::Io { path, source }
}
