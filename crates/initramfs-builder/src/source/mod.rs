//! Sources of images.

pub mod archive;
pub(crate) mod configuration;
mod language;
pub(crate) mod manifest;
mod parse;
mod reference;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use language::LanguageSources;
pub(crate) use reference::is_sha256;
pub use reference::{Reference, ReferenceError};

/// A source of an image.
///
/// [`Source::from_str`](std::str::FromStr) parses the output of [`Display`](fmt::Display), and paths of local images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An image in a registry.
    Registry(Reference),
    /// `oci:PATH[:TAG]`: an OCI image layout, a directory or a tar of one.
    Oci {
        /// The directory or the tar.
        path: PathBuf,
        /// The image's tag; not needed if the layout has one image.
        tag: Option<String>,
    },
    /// `docker-archive:PATH[:TAG]`: the output of `docker save`.
    DockerArchive {
        /// The tar.
        path: PathBuf,
        /// The image's `name:tag`; not needed if the archive has one image.
        tag: Option<String>,
    },
    /// `debian:SUITE[,PACKAGE…]`: Debian packages and what they depend on.
    Debian(Packages),
}

/// A Debian installation of a few packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// The release, such as `bookworm`.
    pub suite: String,
    /// Packages, beyond what every image has: [`crate::debian::BASE_PACKAGES`].
    pub packages: Vec<String>,
    /// Added to the environment of programs.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A source could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// None of the known forms.
    #[error(
        "invalid source `{0}`: write registry/name:tag, oci:PATH[:TAG], docker-archive:PATH or debian:SUITE[,PACKAGE...]"
    )]
    Unknown(String),
    /// A malformed reference to a registry.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A suite or package with characters that Debian does not allow.
    #[error("invalid name of a Debian suite or package: `{0}`")]
    DebianName(String),
    /// A path without an image.
    #[error(
        "`{0}` is neither an OCI image layout (a directory or a tar) nor a `docker save` archive"
    )]
    NoImage(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged =
            |f: &mut fmt::Formatter<'_>, kind: &str, path: &PathBuf, tag: &Option<String>| {
                write!(f, "{kind}:{}", path.display())?;
                tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
            };
        match self {
            Source::Registry(reference) => reference.fmt(f),
            Source::Oci { path, tag } => tagged(f, "oci", path, tag),
            Source::DockerArchive { path, tag } => tagged(f, "docker-archive", path, tag),
            Source::Debian(packages) => {
                write!(f, "debian:{}", packages.suite)?;
                packages
                    .packages
                    .iter()
                    .try_for_each(|package| write!(f, ",{package}"))
            }
        }
    }
}
