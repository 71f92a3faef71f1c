//! SHA-256 digests of files, read again only when a file changes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::identity::FileIdentity;

/// The SHA-256 of the rest of a file, in hexadecimal.
pub fn digest_of(file: &mut File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(const_hex::encode(digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Digests of files by path. A file that has not changed costs a stat(2).
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<HashMap<PathBuf, (FileIdentity, String)>>,
}

impl Digests {
    /// The digest of the file at `path`. Blocks: reads the whole file unless its digest is known.
    pub fn of(&self, path: &Path) -> io::Result<String> {
        let now = FileIdentity::of(&std::fs::metadata(path)?);
        if let Some(digest) = self.if_known(path, now) {
            return Ok(digest);
        }
        let mut file = File::open(path)?;
        // The path may name another file by now: this is the identity of the file that is read.
        let before = FileIdentity::of(&file.metadata()?);
        let digest = digest_of(&mut file)?;
        // The digest of a file that changed while it was read is used once and not remembered.
        if FileIdentity::of(&file.metadata()?) == before {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(path.to_owned(), (before, digest.clone()));
        }
        Ok(digest)
    }

    /// The digest of the file at `path` if a stat(2) shows that it is known.
    pub fn known(&self, path: &Path) -> Option<String> {
        self.if_known(path, FileIdentity::of(&std::fs::metadata(path).ok()?))
    }

    fn if_known(&self, path: &Path, now: FileIdentity) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (identity, digest) = known.get(path)?;
        (*identity == now).then(|| digest.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_to_or_replaced_has_a_new_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let digests = Digests::default();
        std::fs::write(&path, "one").unwrap();
        assert_eq!(digests.known(&path), None);
        let one = digests.of(&path).unwrap();
        assert_eq!(digests.of(&path).unwrap(), one);
        assert_eq!(digests.known(&path), Some(one.clone()));
        assert_eq!(
            one,
            "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
        );

        std::fs::write(&path, "two").unwrap();
        assert_eq!(digests.known(&path), None);
        let two = digests.of(&path).unwrap();
        assert_ne!(two, one);

        let other = dir.path().join("other");
        std::fs::write(&other, "one").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(digests.of(&path).unwrap(), one);
    }

    #[test]
    fn a_file_that_is_gone_has_none_even_if_it_was_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        std::fs::write(&path, "one").unwrap();
        let digests = Digests::default();
        digests.of(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(digests.of(&path).is_err());
    }
}
