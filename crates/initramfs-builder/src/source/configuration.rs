//! Configurations of images (image-spec 1.1, config.md).

use cloude_protocol::boot::ImageConfig;
use serde::Deserialize;

use super::manifest::ManifestError;
use crate::platform::Platform;

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

/// The used fields of a configuration.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub config: ImageConfig,
    pub diff_ids: Vec<String>,
}

impl Configuration {
    /// Parses a configuration, and checks its platform and number of layers.
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

    #[test]
    fn a_configuration_needs_its_layers_only() {
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
