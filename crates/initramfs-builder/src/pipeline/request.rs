//! The request of a build.

use std::path::PathBuf;
use std::sync::LazyLock;

use super::version::Program;
use crate::archive::Output;
use crate::debian::{self, DebianOptions};
use crate::limits::Limits;
use crate::platform::Platform;
use crate::progress::Cancel;
use crate::registry::RegistryOptions;
use crate::source::Source;
use crate::store::Metadata;

/// Recorded with each image; images of another version, or of packages that were finished in another
/// way, are built anew.
pub(super) static BUILDER: LazyLock<String> =
    LazyLock::new(|| format!("{}+{}", env!("CARGO_PKG_VERSION"), debian::recipe()));

/// Source, destination and options of a build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The source of the image.
    pub source: Source,
    /// The source if `source` is a registry that is unreachable.
    pub fallback: Option<Source>,
    /// The program that the image is for. An image with another version than the program's is refused.
    pub program: Option<Program>,
    /// Where the image is written.
    pub destination: Destination,
    /// Compression.
    pub output: Output,
    /// Platform to choose from an index.
    pub platform: Platform,
    /// Limits on the image.
    pub limits: Limits,
    /// Memory of the VM, in bytes: an image that needs more is refused.
    pub memory: Option<u64>,
    /// See [`crate::archive::ImageOptions::source_date_epoch`].
    pub source_date_epoch: Option<u32>,
    /// Build even if the stored image is up to date.
    pub force: bool,
    /// Resolve the tag or suite again, even if the stored image was built from it.
    pub pull: bool,
    /// Bytes to append to the initramfs, such as a boot segment. For [`Destination::File`] alone.
    pub append: Option<Vec<u8>>,
    /// Mirrors and hosts with plain HTTP.
    pub registry: RegistryOptions,
    /// Mirror of Debian.
    pub debian: DebianOptions,
    /// The cache directory, for blobs, packages and temporary files.
    pub cache_dir: PathBuf,
    /// Stops the build.
    pub cancel: Cancel,
}

/// The destination of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A store.
    Store {
        /// The store's directory.
        dir: PathBuf,
        /// The image's name.
        name: String,
    },
    /// A file, without metadata.
    File(PathBuf),
}

impl BuildRequest {
    /// A request with defaults. The image `name` goes to the store `CACHE/images`.
    pub fn new(source: Source, name: &str, cache_dir: impl Into<PathBuf>) -> Self {
        let cache_dir = cache_dir.into();
        BuildRequest {
            source,
            fallback: None,
            program: None,
            destination: Destination::Store {
                dir: cache_dir.join("images"),
                name: name.to_owned(),
            },
            output: Output::Plain,
            platform: Platform::default(),
            limits: Limits::default(),
            memory: None,
            source_date_epoch: None,
            force: false,
            pull: false,
            append: None,
            registry: RegistryOptions::default(),
            debian: DebianOptions::default(),
            cache_dir,
            cancel: Cancel::new(),
        }
    }

    /// True if a stored image was built from an equal request.
    pub(super) fn matches(&self, metadata: &Metadata) -> bool {
        let requested = self.source.to_string();
        let same_source = match (&metadata.instead_of, &self.fallback) {
            (None, _) => metadata.source == requested,
            (Some(instead_of), Some(fallback)) => {
                *instead_of == requested && metadata.source == fallback.to_string()
            }
            (Some(_), None) => false,
        };
        let program = self.program.as_ref();
        same_source
            && program.is_none_or(|program| program.check(metadata).is_ok())
            && metadata.builder == *BUILDER
            && metadata.output == self.output
            && metadata.platform == self.platform.to_string()
            && metadata.source_date_epoch == self.source_date_epoch
            && self
                .memory
                .is_none_or(|memory| memory >= metadata.required_memory)
    }
}
