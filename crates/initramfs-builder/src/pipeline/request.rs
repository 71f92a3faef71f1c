//! What to build.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use super::Cancel;
use crate::archive::Output;
use crate::debian::{self, DebianOptions};
use crate::limits::Limits;
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
    /// Where it comes from if the registry cannot be reached.
    pub fallback: Option<Source>,
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
        let sources = [Some(&self.source), self.fallback.as_ref()];
        metadata.builder == *BUILDER
            && metadata.output == self.output
            && metadata.platform == self.platform.to_string()
            && metadata.source_date_epoch == self.source_date_epoch
            && sources
                .iter()
                .flatten()
                .any(|source| source.to_string() == metadata.source)
            && self
                .memory
                .is_none_or(|memory| memory >= metadata.required_memory)
    }
}

/// An operating system and an architecture, in the words of Go: `linux/amd64`, `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Such as `v8`; none takes any.
    pub variant: Option<String>,
}

impl Default for Platform {
    fn default() -> Self {
        Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// Not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform; write os/architecture, such as linux/amd64")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}
