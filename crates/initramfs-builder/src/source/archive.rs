//! Local images: OCI image layouts (a directory or a tar), and `docker save` archives.

mod docker;
mod error;
mod files;
mod oci;

use std::io::Read;
use std::path::{Path, PathBuf};

pub(crate) use docker::open as open_docker;
pub use error::ArchiveError;
use files::{Files, Part};
pub(crate) use oci::open as open_oci;

use sha2::{Digest, Sha256};

use super::manifest::{MAX_DOCUMENT_BYTES, ManifestError};
use crate::cache::digest_of;
use crate::error::BuildError;
use crate::image::BlobRead;

/// The kind of a local image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Oci,
    Docker,
}

/// Detects the kind of a local image. Archives of recent Docker versions are both: they are read as layouts, in which
/// every file has a digest.
pub(super) fn detect(path: &Path) -> Option<Kind> {
    let files = Files::open(path).ok()?;
    if files.has("index.json") {
        return Some(Kind::Oci);
    }
    (files.is_tar() && files.has("manifest.json")).then_some(Kind::Docker)
}

/// Reads a whole JSON document.
fn document(files: &Files, name: &str, kind: &'static str) -> Result<Vec<u8>, ArchiveError> {
    let mut part = files.part(name, kind)?;
    if part.size > MAX_DOCUMENT_BYTES {
        let source = ManifestError::TooLarge(part.size);
        return Err(ArchiveError::Manifest {
            path: files.path.clone(),
            source,
        });
    }
    let mut bytes = Vec::new();
    part.read_to_end(&mut bytes)
        .map_err(|source| files.io(source))?;
    Ok(bytes)
}

/// A blob of an archive, verified at its end if it has a digest.
struct ArchiveBlob {
    part: Part,
    path: PathBuf,
    hasher: Sha256,
    /// None in `docker save` archives, which have a `diff_id` only.
    digest: Option<String>,
}

impl BlobRead for ArchiveBlob {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BuildError> {
        let read = self.part.read(buffer).map_err(|source| ArchiveError::Io {
            path: self.path.clone(),
            source,
        })?;
        let Some(digest) = &self.digest else {
            return Ok(read);
        };
        self.hasher.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() {
            let actual = digest_of(&self.hasher);
            if actual != *digest {
                let (path, name) = (self.path.clone(), digest.clone());
                return Err(ArchiveError::Mismatch { path, name, actual }.into());
            }
        }
        Ok(read)
    }
}

/// Checks a document against its digest.
fn check_digest(files: &Files, bytes: &[u8], digest: &str) -> Result<(), ArchiveError> {
    let actual = digest_of(&Sha256::new_with_prefix(bytes));
    if actual == digest {
        return Ok(());
    }
    let (path, name) = (files.path.clone(), digest.to_owned());
    Err(ArchiveError::Mismatch { path, name, actual })
}
