//! flock(2) locks, which exclude threads and processes and are released when their holder ends.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{CacheError, at};
use crate::progress::Cancel;

/// Pause between two attempts for a lock that is held.
const RETRY: Duration = Duration::from_millis(20);

/// A held lock; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Deletes the lock file, unless `dry_run` is set. A waiting process creates a new one.
    pub fn remove(self, dry_run: bool) {
        if !dry_run {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits for a lock until it is free or `cancel` is set.
pub(crate) fn lock(path: &Path, cancel: &Cancel) -> Result<Lock, CacheError> {
    loop {
        if let Some(lock) = try_lock(path)? {
            return Ok(lock);
        }
        if cancel.is_set() {
            return Err(CacheError::Cancelled);
        }
        std::thread::sleep(RETRY);
    }
}

/// Takes a lock if it is free.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, CacheError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(at(path)(error)),
    }
    // Pruning may have deleted the file between open and flock: the lock would exclude nobody.
    let held = file.metadata().map_err(at(path))?.ino();
    match fs::metadata(path) {
        Ok(there) if there.ino() == held => Ok(Some(Lock {
            path: path.to_owned(),
            _file: file,
        })),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_a_second_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = try_lock(&path).unwrap();
        assert!(first.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop(first);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn waiting_for_a_lock_ends_when_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let _held = try_lock(&path).unwrap();
        let cancel = Cancel::new();
        cancel.set();
        assert!(matches!(lock(&path, &cancel), Err(CacheError::Cancelled)));
    }
}
