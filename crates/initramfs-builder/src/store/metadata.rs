//! `NAME.json`.

use cloude_protocol::boot::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::archive::{Output, Summary};

/// The version of this format. Images of another version are built anew.
pub const METADATA_VERSION: u32 = 2;

/// The metadata of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// [`METADATA_VERSION`].
    pub version: u32,
    /// The version of the builder.
    pub builder: String,
    /// The source, in the form of [`crate::source::Source`]'s `Display`.
    pub source: String,
    /// The registry's image that was asked for and could not be reached, if `source` is what was built in
    /// its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// The version of the program that the image is for, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_version: Option<String>,
    /// `os/architecture`, with `/variant` if it has one.
    pub platform: String,
    /// The digest of the manifest, for an image of a registry or a layout; of the configuration, for
    /// one of `docker save`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
    /// Its layers, the bottom one first.
    #[serde(default)]
    pub layers: Vec<LayerRecord>,
    /// Debian packages, `name_version_architecture`.
    #[serde(default)]
    pub packages: Vec<String>,
    /// When it was built, in seconds since 1970.
    pub built_at: u64,
    /// When it was last compared with its source and found unchanged, or built; in seconds since 1970.
    pub checked_at: u64,
    /// `sha256:…` of the initramfs.
    pub archive_digest: String,
    /// Compression.
    pub output: Output,
    /// The `SOURCE_DATE_EPOCH` that it was built with.
    #[serde(default)]
    pub source_date_epoch: Option<u32>,
    /// Environment and user of programs, for the agent.
    pub config: ImageConfig,
    /// Bytes of memory that a VM needs to boot it, at the least.
    pub required_memory: u64,
    /// Sizes and counts.
    pub summary: Summary,
}

impl Metadata {
    /// Digests and packages that the cache must keep so that the image can be built again without a network.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        let layers = self.layers.iter().map(|layer| &layer.digest);
        let manifests = self.digest.iter().chain(&self.config_digest);
        layers
            .chain(manifests)
            .chain(&self.packages)
            .map(String::as_str)
    }
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// `sha256:…` of the layer as it is stored.
    pub digest: String,
    /// Bytes as it is stored.
    pub size: u64,
}

#[cfg(test)]
impl Metadata {
    pub(crate) fn for_test(name: &str) -> Self {
        Metadata {
            version: METADATA_VERSION,
            builder: "0".to_owned(),
            source: name.to_owned(),
            instead_of: None,
            program_version: None,
            platform: "linux/amd64".to_owned(),
            digest: None,
            config_digest: None,
            layers: Vec::new(),
            packages: Vec::new(),
            built_at: 0,
            checked_at: 0,
            archive_digest: String::new(),
            output: Output::Plain,
            source_date_epoch: None,
            config: ImageConfig::default(),
            required_memory: 0,
            summary: Summary::default(),
        }
    }
}
