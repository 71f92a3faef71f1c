//! Manifests and indexes of OCI (image-spec 1.1) and Docker (schema 2), which have the same fields.

use std::cmp::Reverse;

use serde::Deserialize;

use super::is_sha256;
use crate::platform::Platform;

/// The `Accept` field, in order of preference.
pub(crate) const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Largest manifest or configuration in bytes. Registries allow manifests of 4 MiB.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// The annotation of an index that contains an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation of an index that marks attestations, which are not images.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A manifest, index or configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Malformed JSON, or missing fields.
    #[error("malformed {what}: {source}")]
    Json {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A manifest of Docker's schema 1.
    #[error(
        "the manifest has Docker's schema 1, obsolete since 2017: push the image again with a current Docker"
    )]
    Schema1,
    /// The image is not available for the platform.
    #[error(
        "the image is not available for {wanted}; it has {available}: choose one with --platform"
    )]
    Platform {
        /// The requested platform.
        wanted: String,
        /// The available platforms.
        available: String,
    },
    /// Several images, and no tag was given.
    #[error("the archive has several images: append one of these tags: {0}")]
    Ambiguous(String),
    /// No image has the tag.
    #[error("no image has the tag `{tag}`; available: {available}")]
    Tag {
        /// The tag.
        tag: String,
        /// The available tags.
        available: String,
    },
    /// An artifact of another kind, such as a Helm chart.
    #[error("this is not a container image: it has a layer of type `{0}`")]
    LayerType(String),
    /// A malformed digest, or one of another algorithm.
    #[error("unsupported digest `{0}`: expected sha256: and 64 hexadecimal digits")]
    Digest(String),
    /// Manifest and configuration have different numbers of layers.
    #[error("the manifest has {layers} layers, and the configuration has {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// Larger than 4 MiB.
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

/// A parsed manifest or index.
#[derive(Debug)]
pub(crate) enum Manifest {
    /// An image.
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    /// The manifest that was chosen from an index.
    Index(Descriptor),
}

impl Manifest {
    /// Parses a manifest, or an index. From an index, the manifest for the platform and the tag, if any, is chosen.
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
            let source = serde::de::Error::custom("neither `manifests` nor `layers`");
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
    // Indexes of layouts may lack the platform; the configuration is then checked.
    let rank = |raw: &RawDescriptor| match &raw.platform {
        Some(it) => Platform::from(it).serves(platform),
        None => Some(1),
    };
    candidates.retain(|raw| rank(raw).is_some());
    // `min_by_key` returns the first of several equal ones.
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
    fn amd64_without_a_variant_is_preferred() {
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
    fn several_tags_need_a_choice() {
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
    fn an_artifact_of_another_kind_is_refused() {
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
}
