//! Why a layer could not be read.

use std::io;
use std::path::PathBuf;

use crate::limits::LimitExceeded;

/// Why a layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It is larger than a limit allows.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// It is not a well-formed tar archive, or has something in it that no initramfs can hold.
    #[error("entry {entry} of the layer, `{path}`: {problem}")]
    Entry {
        /// Which entry, counted from 1.
        entry: u64,
        /// Its path as far as it is known.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Its bytes could not be read or decompressed. The message says which.
    #[error("reading the layer: {0}")]
    Read(#[source] io::Error),
    /// Its contents could not be kept. Make room, or choose another directory.
    #[error("keeping the layer's contents in `{dir}`: {source}")]
    Spool {
        /// Where the temporary file is.
        dir: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not the layer that the image's configuration names (`rootfs.diff_ids`).
    #[error("the layer unpacks to {actual} and the image says {expected}; pull it again")]
    DiffId {
        /// From the image's configuration.
        expected: String,
        /// What it is.
        actual: String,
    },
}
