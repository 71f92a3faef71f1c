//! Fetches one blob: it is read by the layer's reader and written to the cache at the same time. A broken transfer is
//! resumed, also by another process.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use reqwest::blocking::Response;
use reqwest::header::CONTENT_RANGE;
use sha2::{Digest, Sha256};

use super::RegistryError;
use super::client::{Endpoint, backoff, is_transient};
use super::error::innermost;
use crate::cache::{BlobCache, CacheError, CachedBlob, Lock, at, digest_of};
use crate::error::BuildError;
use crate::image::BlobRead;
use crate::progress::Cancel;
use crate::source::manifest::Descriptor;

/// Consecutive attempts without a received byte.
const ATTEMPTS: u32 = 6;

/// A transfer.
pub(super) struct Download<'a> {
    endpoint: &'a Endpoint<'a>,
    cancel: Cancel,
    layer: Descriptor,
    path: PathBuf,
    partial_path: PathBuf,
    partial: File,
    /// Bytes of an earlier transfer that are not yet read from the partial file.
    kept: u64,
    /// An earlier transfer was resumed: a wrong digest may come from its part.
    resumed: bool,
    response: Option<Response>,
    hasher: Sha256,
    position: u64,
    failures: u32,
    _lock: Lock,
}

impl<'a> Download<'a> {
    pub fn start(
        endpoint: &'a Endpoint<'a>,
        cache: &BlobCache,
        layer: &Descriptor,
        lock: Lock,
        cancel: &Cancel,
    ) -> Result<Self, BuildError> {
        let path = cache.path(&layer.digest)?;
        let partial_path = cache.partial_path(&layer.digest)?;
        let partial = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&partial_path)
            .map_err(at(&partial_path))?;
        let mut kept = partial.metadata().map_err(at(&partial_path))?.len();
        if kept > layer.size {
            partial.set_len(0).map_err(at(&partial_path))?;
            kept = 0;
        }
        Ok(Download {
            endpoint,
            cancel: cancel.clone(),
            layer: layer.clone(),
            path,
            partial_path,
            partial,
            kept,
            resumed: kept > 0,
            response: None,
            hasher: Sha256::new(),
            position: 0,
            failures: 0,
            _lock: lock,
        })
    }

    fn read_kept(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.kept).unwrap_or(usize::MAX));
        let read = self
            .partial
            .read(&mut buffer[..wanted])
            .map_err(at(&self.partial_path))?;
        self.kept = if read == 0 {
            0
        } else {
            self.kept - read as u64
        };
        Ok(read)
    }

    /// Reads from the network; reconnects after a broken transfer.
    fn read_network(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError> {
        loop {
            self.cancel.check()?;
            let result = match &mut self.response {
                Some(response) => response.read(buffer).map_err(|error| innermost(&error)),
                None => match self.connect() {
                    Ok(response) => {
                        self.response = Some(response);
                        continue;
                    }
                    Err(error) if self.position == 0 && !is_transient(&error) => {
                        return Err(error.into());
                    }
                    Err(error)
                        if matches!(error, RegistryError::Unreachable { .. })
                            || is_transient(&error) =>
                    {
                        Err(error.to_string())
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            match result {
                Ok(read) if read > 0 => return self.keep(&buffer[..read]),
                Ok(_) => self.broken(format!(
                    "the body ended after {} of {} bytes",
                    self.position, self.layer.size
                ))?,
                Err(reason) => self.broken(reason)?,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<usize, BuildError> {
        if self.position + bytes.len() as u64 > self.layer.size {
            let size = self.position + bytes.len() as u64;
            self.discard()?;
            return Err(RegistryError::TooLarge {
                what: "layer",
                size,
            }
            .into());
        }
        self.partial
            .write_all(bytes)
            .map_err(at(&self.partial_path))?;
        self.failures = 0;
        Ok(bytes.len())
    }

    /// Requests the missing range. The response of a registry that ignores `Range` is read from its start.
    fn connect(&mut self) -> Result<Response, RegistryError> {
        let mut response = self
            .endpoint
            .get("blobs", &self.layer.digest, &[], self.position)?;
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|range| range.to_str().ok());
        let starts_here = format!("bytes {}-", self.position);
        let honoured = response.status().as_u16() == 206
            && range.is_some_and(|range| range.starts_with(&starts_here));
        if self.position > 0 && !honoured {
            let skipped = std::io::copy(
                &mut response.by_ref().take(self.position),
                &mut std::io::sink(),
            );
            if skipped.ok() != Some(self.position) {
                return Err(RegistryError::Broken {
                    registry: self.endpoint.registry.clone(),
                    attempts: self.failures + 1,
                    reason: "the registry ignored the Range field, and the body ended early"
                        .to_owned(),
                });
            }
        }
        Ok(response)
    }

    fn broken(&mut self, reason: String) -> Result<(), BuildError> {
        self.response = None;
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            let (registry, attempts) = (self.endpoint.registry.clone(), self.failures);
            return Err(RegistryError::Broken {
                registry,
                attempts,
                reason,
            }
            .into());
        }
        std::thread::sleep(backoff(self.failures));
        Ok(())
    }

    fn discard(&self) -> Result<(), CacheError> {
        fs::remove_file(&self.partial_path).map_err(at(&self.partial_path))
    }

    /// Verifies the digest, and renames the partial file to the blob.
    fn finish(&self) -> Result<(), BuildError> {
        let actual = digest_of(&self.hasher);
        if actual != self.layer.digest {
            self.discard()?;
            if self.resumed {
                // The part from the disk may be bad: the caller starts again without it.
                return Err(CacheError::Corrupt {
                    path: self.partial_path.clone(),
                }
                .into());
            }
            let expected = self.layer.digest.clone();
            return Err(RegistryError::Mismatch {
                what: "layer",
                expected,
                actual,
            }
            .into());
        }
        fs::rename(&self.partial_path, &self.path).map_err(at(&self.path))?;
        Ok(())
    }
}

impl BlobRead for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.position == self.layer.size {
            self.finish()?;
            return Ok(0);
        }
        let mut read = 0;
        if self.kept > 0 {
            read = self.read_kept(buffer)?;
        }
        if read == 0 {
            self.partial
                .seek(SeekFrom::Start(self.position))
                .map_err(at(&self.partial_path))?;
            read = self.read_network(buffer)?;
        }
        self.hasher.update(&buffer[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl BlobRead for CachedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError> {
        Ok(CachedBlob::read(self, buffer)?)
    }
}
