//! The cache of blobs by digest, shared by all processes of a user.
//!
//! `CACHE/blobs/sha256/HEX` is complete and verified. `HEX.partial` is a transfer that can be resumed. `HEX.lock` is
//! locked while the blob is fetched.

mod error;
mod lock;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use error::CacheError;
pub(crate) use error::at;
pub(crate) use lock::{Lock, lock};

use crate::progress::Cancel;
use crate::source::is_sha256;

/// The directory of blobs.
#[derive(Clone, Debug)]
pub struct BlobCache {
    dir: PathBuf,
}

/// A file that pruning deleted, or would delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

impl BlobCache {
    /// Opens `CACHE/blobs/sha256`, and creates it if needed.
    pub fn open(cache: &Path) -> Result<Self, CacheError> {
        let dir = cache.join("blobs/sha256");
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        Ok(BlobCache { dir })
    }

    /// The path of a blob, which need not exist.
    pub fn path(&self, digest: &str) -> Result<PathBuf, CacheError> {
        let hex = digest.strip_prefix("sha256:").filter(|_| is_sha256(digest));
        hex.map(|hex| self.dir.join(hex))
            .ok_or_else(|| CacheError::Digest(digest.to_owned()))
    }

    /// The path of an incomplete transfer.
    pub(crate) fn partial_path(&self, digest: &str) -> Result<PathBuf, CacheError> {
        Ok(self.path(digest)?.with_extension("partial"))
    }

    /// A reader that fails at its end if the digest is wrong. None if the blob is not in the cache. A blob of another
    /// size is deleted.
    pub(crate) fn read(&self, digest: &str, size: u64) -> Result<Option<CachedBlob>, CacheError> {
        let path = self.path(digest)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        if file.metadata().map_err(at(&path))?.len() != size {
            fs::remove_file(&path).map_err(at(&path))?;
            return Ok(None);
        }
        Ok(Some(CachedBlob {
            file,
            path,
            hasher: Sha256::new(),
            digest: digest.to_owned(),
        }))
    }

    /// Locks a blob against other threads and processes that fetch it.
    pub(crate) fn lock(&self, digest: &str, cancel: &Cancel) -> Result<Lock, CacheError> {
        let path = self.path(digest)?.with_extension("lock");
        lock(&path, cancel)
    }

    /// Deletes blobs for which `needed` is false, and returns them. Blobs that are being fetched stay.
    pub fn prune(
        &self,
        dry_run: bool,
        needed: impl Fn(&str) -> bool,
    ) -> Result<Vec<Pruned>, CacheError> {
        let mut pruned = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let path = entry.map_err(at(&self.dir))?.path();
            let Some(hex) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            let kind = path.extension().and_then(|extension| extension.to_str());
            if kind.is_none() && needed(&format!("sha256:{hex}")) {
                continue;
            }
            let Some(held) = lock::try_lock(&path.with_extension("lock"))? else {
                continue;
            };
            let bytes = fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
            if kind == Some("lock") {
                held.remove(dry_run);
                continue;
            }
            if !dry_run {
                fs::remove_file(&path).map_err(at(&path))?;
            }
            held.remove(dry_run);
            pruned.push(Pruned { path, bytes });
        }
        pruned.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(pruned)
    }
}

/// A blob from the cache.
pub(crate) struct CachedBlob {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    digest: String,
}

impl CachedBlob {
    /// Reads. At the end, deletes a blob whose digest is wrong.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CacheError> {
        let read = self.file.read(buffer).map_err(at(&self.path))?;
        self.hasher.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() && digest_of(&self.hasher) != self.digest {
            fs::remove_file(&self.path).map_err(at(&self.path))?;
            return Err(CacheError::Corrupt {
                path: self.path.clone(),
            });
        }
        Ok(read)
    }
}

/// `sha256:HEX` of the bytes so far.
pub(crate) fn digest_of(hasher: &Sha256) -> String {
    format!("sha256:{}", const_hex::encode(hasher.clone().finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &BlobCache, name: &[u8], bytes: &[u8]) -> String {
        let digest = digest_of(&Sha256::new_with_prefix(name));
        fs::write(cache.path(&digest).unwrap(), bytes).unwrap();
        digest
    }

    fn read_all(blob: &mut CachedBlob) -> Result<Vec<u8>, CacheError> {
        let (mut all, mut buffer) = (Vec::new(), [0; 3]);
        loop {
            match blob.read(&mut buffer)? {
                0 => return Ok(all),
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn a_complete_blob_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path()).unwrap();
        let digest = put(&cache, b"hello", b"hello");
        let mut blob = cache.read(&digest, 5).unwrap().unwrap();
        assert_eq!(read_all(&mut blob).unwrap(), b"hello");
    }

    #[test]
    fn a_corrupt_blob_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path()).unwrap();
        let digest = put(&cache, b"hello", b"jello");
        let mut blob = cache.read(&digest, 5).unwrap().unwrap();
        assert!(matches!(
            read_all(&mut blob),
            Err(CacheError::Corrupt { .. })
        ));
        assert!(cache.read(&digest, 5).unwrap().is_none());
    }

    #[test]
    fn a_blob_of_another_size_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path()).unwrap();
        let digest = put(&cache, b"hello", b"hell");
        assert!(cache.read(&digest, 5).unwrap().is_none());
        assert!(!cache.path(&digest).unwrap().exists());
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path()).unwrap();
        for digest in ["sha256:../../etc/passwd", "sha512:00", "sha256:"] {
            assert!(matches!(cache.path(digest), Err(CacheError::Digest(_))));
        }
    }

    #[test]
    fn pruning_keeps_needed_blobs_and_running_transfers() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(dir.path()).unwrap();
        let needed = put(&cache, b"a", b"a");
        let unneeded = put(&cache, b"b", b"bb");
        let fetching = put(&cache, b"c", b"");
        let fetching_path = cache.path(&fetching).unwrap();
        fs::rename(&fetching_path, fetching_path.with_extension("partial")).unwrap();
        let held = cache.lock(&fetching, &Cancel::new()).unwrap();

        let would = cache.prune(true, |digest| digest == needed).unwrap();
        let did = cache.prune(false, |digest| digest == needed).unwrap();

        let path = cache.path(&unneeded).unwrap();
        assert_eq!(
            did,
            [Pruned {
                path: path.clone(),
                bytes: 2
            }]
        );
        assert_eq!(would, did);
        assert!(!path.exists() && cache.path(&needed).unwrap().exists());
        assert!(fetching_path.with_extension("partial").exists());
        drop(held);
        assert_eq!(
            cache.prune(false, |digest| digest == needed).unwrap().len(),
            1
        );
    }
}
