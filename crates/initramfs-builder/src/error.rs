//! Errors of a build.

use crate::archive::WriteError;
use crate::cache::CacheError;
use crate::debian::DebianError;
use crate::layer::LayerError;
use crate::pipeline::VersionMismatch;
use crate::platform::PlatformError;
use crate::progress::Cancelled;
use crate::registry::RegistryError;
use crate::source::SourceError;
use crate::source::archive::ArchiveError;
use crate::store::StoreError;
use crate::tree::TreeError;

/// An image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The source is malformed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// This machine cannot run the platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry failed or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The local image could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The cache of blobs failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// mmdebstrap failed.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// The output of mmdebstrap could not be read.
    #[error("the output of mmdebstrap: {source}")]
    Packages {
        /// The reason.
        source: LayerError,
    },
    /// A layer could not be read.
    #[error("layer {number} ({digest}): {source}")]
    Layer {
        /// Number of the layer, from 1 at the bottom.
        number: usize,
        /// Its digest.
        digest: String,
        /// The reason.
        source: LayerError,
    },
    /// The layers could not be merged.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The initramfs could not be written, or is too large.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The source has another version than the wanted one.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// The store of images failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cancelled by the caller.
    #[error("cancelled")]
    Cancelled,
}

impl BuildError {
    /// True if no connection to the registry was made: another source may be used.
    pub fn registry_unreachable(&self) -> bool {
        matches!(self, BuildError::Registry(error) if error.is_unreachable())
    }
}

impl From<Cancelled> for BuildError {
    fn from(_: Cancelled) -> Self {
        BuildError::Cancelled
    }
}
