//! Manifests, indexes and configurations, of OCI (image-spec 1.1) and of Docker (schema 2), which
//! have the same fields.

use std::cmp::Reverse;

use cloude_protocol::boot::ImageConfig;
use serde::Deserialize;

use super::is_sha256;
use crate::platform::Platform;

/// What a client says it can read. The order is that of preference.
pub(crate) const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Bytes in a manifest or a configuration. Registries allow manifests of 4 MiB.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Where an index says which tag an image has.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// An annotation of indexes that marks what describes another image and is none.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Why a document of an image makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that it should be.
    #[error("the {what} is not well formed: {source}")]
    Json {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Docker's schema 1.
    #[error(
        "the manifest has the schema 1 of Docker, which has been obsolete since 2017; push the image again"
    )]
    Schema1,
    /// Not for this platform.
    #[error("the image has no {wanted}; it has {available}. Choose one with --platform")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// Several, and nothing says which.
    #[error("there are several images; name one of these tags: {0}")]
    Ambiguous(String),
    /// A tag that is not there.
    #[error("there is no image with the tag `{tag}`; there are: {available}")]
    Tag {
        /// The tag.
        tag: String,
        /// The tags that there are.
        available: String,
    },
    /// An artifact that is no image.
    #[error("the layer type `{0}` is none of an image")]
    LayerType(String),
    /// A digest in another form.
    #[error("`{0}` is no digest; sha256: and 64 hexadecimal digits are the only kind known")]
    Digest(String),
    /// The manifest and the configuration do not agree.
    #[error("the image has {layers} layers, and its configuration names {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A document that is too large.
    #[error("the manifest or configuration has {0} bytes, and the limit is {MAX_DOCUMENT_BYTES}")]
    TooLarge(u64),
}

/// A manifest, or an index of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// One blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

/// What a document turned out to be.
#[derive(Debug)]
pub(crate) enum Manifest {
    /// An image.
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    /// An index, from which this manifest was chosen.
    Index(Descriptor),
}

impl Manifest {
    /// Reads a manifest, or an index from which the platform, and the tag if any, choose.
    pub fn parse(
        bytes: &[u8],
        platform: &Platform,
        tag: Option<&str>,
    ) -> Result<Self, ManifestError> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|source| ManifestError::Json {
                what: "manifest",
                source,
            })?;
        if document.schema_version == 1 {
            return Err(ManifestError::Schema1);
        }
        if let Some(manifests) = document.manifests {
            return choose(&manifests, platform, tag).map(Manifest::Index);
        }
        let (Some(config), Some(layers)) = (document.config, document.layers) else {
            let source = serde::de::Error::custom("it has neither `manifests` nor `layers`");
            return Err(ManifestError::Json {
                what: "manifest",
                source,
            });
        };
        for layer in &layers {
            if !layer.media_type.contains("tar") {
                return Err(ManifestError::LayerType(layer.media_type.clone()));
            }
        }
        let layers = layers.iter().map(descriptor).collect::<Result<_, _>>()?;
        Ok(Manifest::Image {
            config: descriptor(&config)?,
            layers,
        })
    }
}

fn descriptor(raw: &RawDescriptor) -> Result<Descriptor, ManifestError> {
    if !is_sha256(&raw.digest) {
        return Err(ManifestError::Digest(raw.digest.clone()));
    }
    Ok(Descriptor {
        media_type: raw.media_type.clone(),
        digest: raw.digest.clone(),
        size: raw.size,
    })
}

fn choose(
    manifests: &[RawDescriptor],
    platform: &Platform,
    tag: Option<&str>,
) -> Result<Descriptor, ManifestError> {
    let tag_of = |raw: &RawDescriptor| raw.annotations.get(REF_NAME).cloned();
    let list = |names: Vec<String>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let mut candidates: Vec<&RawDescriptor> = manifests
        .iter()
        .filter(|raw| !raw.annotations.contains_key(REFERENCE_TYPE))
        .collect();
    if let Some(tag) = tag {
        candidates.retain(|raw| tag_of(raw).as_deref() == Some(tag));
        if candidates.is_empty() {
            let available = list(manifests.iter().filter_map(tag_of).collect());
            return Err(ManifestError::Tag {
                tag: tag.to_owned(),
                available,
            });
        }
    }
    // An index in a layout need not say the platform; then the configuration does.
    let rank = |raw: &RawDescriptor| match &raw.platform {
        Some(it) => Platform::from(it).serves(platform),
        None => Some(1),
    };
    candidates.retain(|raw| rank(raw).is_some());
    // Of several that serve equally well the first.
    let Some(best) = candidates.iter().min_by_key(|raw| Reverse(rank(raw))) else {
        let platforms = manifests.iter().filter_map(|raw| raw.platform.as_ref());
        let available = list(platforms.map(|it| Platform::from(it).to_string()).collect());
        return Err(ManifestError::Platform {
            wanted: platform.to_string(),
            available,
        });
    };
    if candidates
        .iter()
        .any(|raw| raw.digest != best.digest && raw.platform.is_none())
    {
        return Err(ManifestError::Ambiguous(list(
            candidates.into_iter().filter_map(tag_of).collect(),
        )));
    }
    descriptor(best)
}

impl From<&RawPlatform> for Platform {
    fn from(raw: &RawPlatform) -> Self {
        Platform {
            os: raw.os.clone(),
            architecture: raw.architecture.clone(),
            variant: raw.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct RawConfiguration {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Debug, Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

/// What is used of an image's configuration.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub config: ImageConfig,
    pub diff_ids: Vec<String>,
}

impl Configuration {
    /// Reads a configuration and checks that it is for the platform and has that many layers.
    pub fn parse(bytes: &[u8], platform: &Platform, layers: usize) -> Result<Self, ManifestError> {
        let raw: RawConfiguration =
            serde_json::from_slice(bytes).map_err(|source| ManifestError::Json {
                what: "configuration",
                source,
            })?;
        let known = !raw.os.is_empty() && !raw.architecture.is_empty();
        if known && (raw.os != platform.os || raw.architecture != platform.architecture) {
            let available = format!("{}/{}", raw.os, raw.architecture);
            return Err(ManifestError::Platform {
                wanted: platform.to_string(),
                available,
            });
        }
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != layers {
            return Err(ManifestError::LayerCount {
                layers,
                diff_ids: diff_ids.len(),
            });
        }
        let config = raw.config.unwrap_or_default();
        Ok(Configuration {
            config: ImageConfig {
                env: config.env.unwrap_or_default(),
                user: config.user.unwrap_or_default(),
                working_dir: config.working_dir.unwrap_or_default(),
                entrypoint: config.entrypoint.unwrap_or_default(),
                cmd: config.cmd.unwrap_or_default(),
            },
            diff_ids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: char) -> String {
        format!("sha256:{}", of.to_string().repeat(64))
    }

    fn index(entries: &str) -> Vec<u8> {
        format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#).into_bytes()
    }

    fn entry(of: char, rest: &str) -> String {
        format!(
            r#"{{"mediaType":"m","digest":"{}","size":1{rest}}}"#,
            digest(of)
        )
    }

    #[test]
    fn the_platform_chooses_from_an_index() {
        let arm = entry('a', r#","platform":{"os":"linux","architecture":"arm64"}"#);
        let amd = entry('b', r#","platform":{"os":"linux","architecture":"amd64"}"#);
        let bytes = index(&format!("{arm},{amd}"));
        let chosen = Manifest::parse(&bytes, &Platform::default(), None);
        assert!(matches!(chosen, Ok(Manifest::Index(d)) if d.digest == digest('b')));
        let none = Manifest::parse(&bytes, &"linux/s390x".parse().unwrap(), None).unwrap_err();
        assert!(
            none.to_string().contains("linux/arm64, linux/amd64"),
            "{none}"
        );
    }

    #[test]
    fn of_the_levels_of_x86_64_the_plain_one_is_chosen_unless_one_is_named() {
        let amd64 = |of, rest: &str| {
            let platform = r#""os":"linux","architecture":"amd64""#;
            entry(of, &format!(r#","platform":{{{platform}{rest}}}"#))
        };
        let v3 = amd64('a', r#","variant":"v3""#);
        let bytes = index(&format!("{v3},{}", amd64('b', "")));
        let chosen =
            |platform: &str| match Manifest::parse(&bytes, &platform.parse().unwrap(), None) {
                Ok(Manifest::Index(descriptor)) => descriptor.digest,
                other => panic!("{other:?}"),
            };
        assert_eq!(chosen("linux/amd64"), digest('b'));
        assert_eq!(chosen("linux/amd64/v2"), digest('b'));
        assert_eq!(chosen("linux/amd64/v3"), digest('a'));
        let error = Manifest::parse(&index(&v3), &Platform::default(), None).unwrap_err();
        assert!(
            error.to_string().contains("it has linux/amd64/v3"),
            "{error}"
        );
    }

    #[test]
    fn an_attestation_is_not_chosen() {
        let attestation = entry(
            'a',
            r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
        );
        let image = entry('b', "");
        let bytes = index(&format!("{attestation},{image}"));
        let chosen = Manifest::parse(&bytes, &Platform::default(), None);
        assert!(matches!(chosen, Ok(Manifest::Index(d)) if d.digest == digest('b')));
    }

    #[test]
    fn of_several_tags_one_must_be_named() {
        let tagged = |of, tag: &str| {
            entry(
                of,
                &format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}"#),
            )
        };
        let bytes = index(&format!("{},{}", tagged('a', "v1"), tagged('b', "v2")));
        let platform = Platform::default();
        let error = Manifest::parse(&bytes, &platform, None).unwrap_err();
        assert!(matches!(error, ManifestError::Ambiguous(tags) if tags == "v1, v2"));
        let chosen = Manifest::parse(&bytes, &platform, Some("v2"));
        assert!(matches!(chosen, Ok(Manifest::Index(d)) if d.digest == digest('b')));
        assert!(matches!(
            Manifest::parse(&bytes, &platform, Some("v3")),
            Err(ManifestError::Tag { .. })
        ));
    }

    #[test]
    fn an_artifact_that_is_no_image_is_refused() {
        let bytes = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            entry('a', ""),
            entry('b', "").replace(r#""m""#, r#""application/vnd.cncf.helm.chart""#)
        );
        let error = Manifest::parse(bytes.as_bytes(), &Platform::default(), None).unwrap_err();
        assert!(matches!(error, ManifestError::LayerType(_)));
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let bytes = index(r#"{"mediaType":"m","digest":"sha256:../../../etc/passwd","size":1}"#);
        let error = Manifest::parse(&bytes, &Platform::default(), None).unwrap_err();
        assert!(matches!(error, ManifestError::Digest(_)));
    }

    #[test]
    fn a_configuration_may_leave_out_everything_but_its_layers() {
        let bytes = br#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Env":null}}"#;
        let configuration = Configuration::parse(bytes, &Platform::default(), 0).unwrap();
        assert_eq!(configuration.config, ImageConfig::default());
        let error = Configuration::parse(bytes, &Platform::default(), 1).unwrap_err();
        assert!(matches!(
            error,
            ManifestError::LayerCount {
                layers: 1,
                diff_ids: 0
            }
        ));
    }
}
