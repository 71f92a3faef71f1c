//! What to build.

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

/// What to build, from what, to where.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Where the image comes from.
    pub source: Source,
    /// Where it comes from if `source` is a registry that cannot be reached.
    pub fallback: Option<Source>,
    /// The program that the image is for. An image with another version than the program's is refused.
    pub program: Option<Program>,
    /// Where it goes.
    pub destination: Destination,
    /// Its compression.
    pub output: Output,
    /// Which of several images behind one name.
    pub platform: Platform,
    /// What an image may cost.
    pub limits: Limits,
    /// Memory of the VM, in bytes: an image that needs more is refused.
    pub memory: Option<u64>,
    /// See [`crate::archive::ImageOptions::source_date_epoch`].
    pub source_date_epoch: Option<u32>,
    /// Build even if the stored image is up to date.
    pub force: bool,
    /// Ask again what a tag, or a suite, now is.
    pub pull: bool,
    /// Bytes to append to the initramfs, such as a boot segment. For [`Destination::File`] alone.
    pub append: Option<Vec<u8>>,
    /// How to reach registries.
    pub registry: RegistryOptions,
    /// How to reach Debian.
    pub debian: DebianOptions,
    /// The root of the cache: blobs, packages and temporary files lie below.
    pub cache_dir: PathBuf,
    /// Stops the build.
    pub cancel: Cancel,
}

/// Where an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Into a store, by name.
    Store {
        /// The store's folder.
        dir: PathBuf,
        /// The image's name.
        name: String,
    },
    /// Into a file, without metadata.
    File(PathBuf),
}

impl BuildRequest {
    /// A request with defaults: `source` becomes the image `name` in the cache's own store.
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

    /// Whether a stored image was built from the same request.
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
