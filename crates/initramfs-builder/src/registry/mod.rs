//! Images from registries, over the HTTP API of the OCI distribution specification 1.1.

mod auth;
mod blob;
mod client;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod transport;

use sha2::{Digest, Sha256};

pub use error::RegistryError;

use crate::cache::{BlobCache, digest_of};
use crate::error::BuildError;
use crate::image::{BlobRead, Image, OpenLayer};
use crate::platform::Platform;
use crate::progress::{Cancel, Event, Progress};
use crate::source::Reference;
use crate::source::configuration::Configuration;
use crate::source::manifest::{Descriptor, MANIFEST_TYPES, MAX_DOCUMENT_BYTES, Manifest};
use blob::Download;
use client::Endpoint;
use transport::Transport;

/// Nested indexes that are followed.
const MAX_INDEXES: usize = 4;

/// Mirrors, and hosts that are allowed plain HTTP.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Registry and URL of a mirror, tried before the registry in order.
    pub mirrors: Vec<(String, String)>,
    /// Hosts (with the port, if any) that may be asked over plain HTTP. Loopback always may.
    pub allow_http: Vec<String>,
}

/// The client of all registries.
pub(crate) struct RegistryImages {
    transport: Transport,
    options: RegistryOptions,
    cache: BlobCache,
    cancel: Cancel,
}

impl RegistryImages {
    pub fn new(
        options: &RegistryOptions,
        cache: BlobCache,
        cancel: Cancel,
    ) -> Result<Self, RegistryError> {
        let transport = Transport::new(&options.allow_http)?;
        Ok(RegistryImages {
            transport,
            options: options.clone(),
            cache,
            cancel,
        })
    }

    /// Resolves a reference to an image's configuration and layers, from a mirror or else from the registry.
    pub fn resolve<'a>(
        &'a self,
        reference: &Reference,
        platform: &Platform,
        progress: &dyn Progress,
    ) -> Result<Image<'a>, BuildError> {
        let mirrors = self
            .options
            .mirrors
            .iter()
            .filter(|(of, _)| *of == reference.registry);
        for (_, url) in mirrors {
            let result = Endpoint::mirror(&self.transport, url, reference)
                .map_err(BuildError::from)
                .and_then(|endpoint| self.resolve_at(endpoint, reference, platform));
            match result {
                Err(BuildError::Registry(error)) => {
                    let message = format!("mirror {url}: {error}; trying {}", reference.registry);
                    progress.event(&Event::Notice { message });
                }
                result => return result,
            }
        }
        let endpoint = Endpoint::new(&self.transport, reference)?;
        self.resolve_at(endpoint, reference, platform)
    }

    fn resolve_at<'a>(
        &'a self,
        endpoint: Endpoint<'a>,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Image<'a>, BuildError> {
        let wrong = |source| RegistryError::Manifest {
            reference: reference.to_string(),
            source,
        };
        let mut name = reference.manifest_name().to_owned();
        for _ in 0..=MAX_INDEXES {
            self.cancel.check()?;
            let bytes = endpoint.document("manifests", &name, &MANIFEST_TYPES, &self.cancel)?;
            let actual = digest_of(&Sha256::new_with_prefix(&bytes));
            if name.starts_with("sha256:") && actual != name {
                return Err(RegistryError::Mismatch {
                    what: "manifest",
                    expected: name,
                    actual,
                }
                .into());
            }
            match Manifest::parse(&bytes, platform, None).map_err(wrong)? {
                Manifest::Index(manifest) => name = manifest.digest,
                Manifest::Image { config, layers } => {
                    let bytes = self.config(&endpoint, &config)?;
                    let parsed =
                        Configuration::parse(&bytes, platform, layers.len()).map_err(wrong)?;
                    return Ok(Image {
                        digest: Some(actual),
                        config_digest: Some(config.digest),
                        config: parsed.config,
                        diff_ids: parsed.diff_ids,
                        layers,
                        opener: Box::new(RemoteLayers {
                            images: self,
                            endpoint,
                        }),
                    });
                }
            }
        }
        Err(RegistryError::TooManyIndexes(reference.to_string()).into())
    }

    fn config(&self, endpoint: &Endpoint<'_>, config: &Descriptor) -> Result<Vec<u8>, BuildError> {
        if config.size > MAX_DOCUMENT_BYTES {
            return Err(RegistryError::TooLarge {
                what: "configuration",
                size: config.size,
            }
            .into());
        }
        let bytes = endpoint.document("blobs", &config.digest, &[], &self.cancel)?;
        let actual = digest_of(&Sha256::new_with_prefix(&bytes));
        if actual != config.digest {
            let expected = config.digest.clone();
            return Err(RegistryError::Mismatch {
                what: "configuration",
                expected,
                actual,
            }
            .into());
        }
        Ok(bytes)
    }
}

/// The layers of one image.
struct RemoteLayers<'a> {
    images: &'a RegistryImages,
    endpoint: Endpoint<'a>,
}

impl OpenLayer for RemoteLayers<'_> {
    fn open<'b>(
        &'b self,
        _: usize,
        layer: &Descriptor,
        _: &'b dyn Progress,
    ) -> Result<Box<dyn BlobRead + 'b>, BuildError> {
        let RegistryImages { cache, cancel, .. } = self.images;
        if let Some(blob) = cache.read(&layer.digest, layer.size)? {
            return Ok(Box::new(blob));
        }
        let lock = cache.lock(&layer.digest, cancel)?;
        // Another process may have fetched it while we waited for the lock.
        if let Some(blob) = cache.read(&layer.digest, layer.size)? {
            return Ok(Box::new(blob));
        }
        Ok(Box::new(Download::start(
            &self.endpoint,
            cache,
            layer,
            lock,
            cancel,
        )?))
    }
}
