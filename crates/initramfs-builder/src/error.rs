//! Why no image was built.

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

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The source is not well formed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The platform is none that this machine runs.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry did not give the image.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The local image could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The cache of blobs.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Debian packages.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// What mmdebstrap unpacked.
    #[error("the packages: {source}")]
    Packages {
        /// Why.
        source: LayerError,
    },
    /// A layer is not what it should be.
    #[error("layer {number} ({digest}): {source}")]
    Layer {
        /// Counted from 1 at the bottom.
        number: usize,
        /// Its digest.
        digest: String,
        /// Why.
        source: LayerError,
    },
    /// The layers do not make a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The initramfs could not be written, or is too large.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The source has another version than the wanted one.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// The store of images.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cancelled by the caller.
    #[error("cancelled")]
    Cancelled,
}

impl BuildError {
    /// Whether the registry was not reached at all, so that another source may serve.
    pub fn registry_unreachable(&self) -> bool {
        matches!(self, BuildError::Registry(error) if error.is_unreachable())
    }
}

impl From<Cancelled> for BuildError {
    fn from(_: Cancelled) -> Self {
        BuildError::Cancelled
    }
}
