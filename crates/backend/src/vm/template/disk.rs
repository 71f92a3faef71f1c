//! Templates on the disk: a folder each below the cache's `templates/`, named by the template's id, with
//! the record and the memory. The memory's zero pages are holes, and it is mapped, not read.
//!
//! With them lies the token that the saved agent asks for. Folders and files are for our user alone (0700,
//! 0600): the guest's memory has the token in it, too. The token opens no VM that runs a program, because
//! every fork gets a token of its own with its identity, and forks are reached only through a socket of ours.
//!
//! Nothing here is trusted: what does not fit or is damaged is set aside, and the template built anew.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cloude_vmm::control::Origin;
use cloude_vmm::snapshot::{MemoryFileError, SnapshotError, Template, save_sparse};
use sha2::{Digest, Sha256};

use crate::vm::fork::Snapshot;
use crate::vm::reopen::reopen;

const MEMORY: &str = "memory";
const RECORD: &str = "record";
const TOKEN: &str = "token";
/// What was set aside, for whoever wants to know why.
const DAMAGED: &str = "damaged";
/// Being written, or left by a clouded that was killed while it wrote.
const PARTIAL: &str = "partial";
/// So many that were set aside are kept.
const KEPT_DAMAGED: usize = 2;

/// Why a template is not loaded, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The folder cannot be used. Templates are then built again after each start.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The memory cannot be written or read.
    #[error(transparent)]
    Memory(#[from] MemoryFileError),
    /// The record is damaged, or not of this version.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its token is damaged, or another template's.
    #[error("its token does not fit its digest")]
    Token,
    /// It is of something else than its name says.
    #[error("it was saved of {saved:?}")]
    Origin {
        /// As saved.
        saved: Origin,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> DiskError + '_ {
    |source| DiskError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The folder of templates.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// That below a cache folder. It is made when it is first needed.
    pub fn new(cache_dir: &Path) -> Self {
        Disk {
            dir: cache_dir.join("templates"),
        }
    }

    /// Held by whoever changes the folder; others, of other processes too, wait.
    fn lock(&self) -> Result<File, DiskError> {
        std::fs::create_dir_all(&self.dir).map_err(at(&self.dir))?;
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        file.lock().map_err(at(&path))?;
        Ok(file)
    }

    /// Keeps a template, and no more than `most` with it, the latest used. Gives the bytes of memory
    /// that take room. Blocks.
    pub fn keep(
        &self,
        id: &str,
        snapshot: &Snapshot,
        token: &str,
        most: usize,
    ) -> Result<u64, DiskError> {
        let _lock = self.lock()?;
        self.remove_with_extension(PARTIAL, 0);
        let partial = self.dir.join(id).with_extension(PARTIAL);
        DirBuilder::new()
            .mode(0o700)
            .create(&partial)
            .map_err(at(&partial))?;
        let written = self
            .write(&partial, snapshot)
            .and_then(|bytes| write_token(&partial, id, token).map(|()| bytes));
        let result = written.and_then(|bytes| {
            let path = self.dir.join(id);
            if path.exists() {
                std::fs::remove_dir_all(&path).map_err(at(&path))?;
            }
            // The name comes last: what has it is whole.
            std::fs::rename(&partial, &path).map_err(at(&path))?;
            let dir = File::open(&self.dir).map_err(at(&self.dir))?;
            dir.sync_all().map_err(at(&self.dir))?;
            Ok(bytes)
        });
        if result.is_err() {
            let _ = std::fs::remove_dir_all(&partial);
        }
        self.evict(id, most);
        result
    }

    fn write(&self, to: &Path, snapshot: &Snapshot) -> Result<u64, DiskError> {
        let path = to.join(MEMORY);
        let memory = create_private(&path)?;
        let bytes = save_sparse(&snapshot.memory, &memory)?;
        memory.sync_all().map_err(at(&path))?;
        let path = to.join(RECORD);
        let mut record = create_private(&path)?;
        let mut source = reopen(&snapshot.record).map_err(at(&path))?;
        io::copy(&mut source, &mut record).map_err(at(&path))?;
        record.sync_all().map_err(at(&path))?;
        Ok(bytes)
    }

    /// The template of that name with its token, if there is one that is whole and of `origin`. One that is not is set
    /// aside, with a line in the log. Reads all of it, once, to compare its digest; blocks.
    pub fn load(&self, id: &str, origin: &Origin) -> Option<(Snapshot, String)> {
        let path = self.dir.join(id);
        if !path.is_dir() {
            return None;
        }
        let opened =
            open(&path, origin).and_then(|snapshot| Ok((snapshot, read_token(&path, id)?)));
        match opened {
            Ok(template) => {
                // Its time is that of its last use: the oldest go first.
                let now = File::open(&path).and_then(|dir| dir.set_modified(SystemTime::now()));
                if let Err(error) = now {
                    tracing::debug!(id, %error, "marking a template as used");
                }
                Some(template)
            }
            Err(error) => {
                self.set_aside(id, &error.to_string());
                None
            }
        }
    }

    /// What a template takes, in bytes; 0 if it is not there.
    pub fn bytes(&self, id: &str) -> u64 {
        let files = std::fs::read_dir(self.dir.join(id)).into_iter().flatten();
        files
            .filter_map(|entry| entry.ok()?.metadata().ok())
            // stat(2) counts blocks of 512 bytes, whatever the file system's are.
            .map(|metadata| metadata.blocks() * 512)
            .sum()
    }

    /// Takes a template out of use, because of `reason`.
    pub fn set_aside(&self, id: &str, reason: &str) {
        tracing::warn!(
            id,
            reason,
            "a saved template is of no use; it is set aside and built anew"
        );
        let Ok(_lock) = self.lock() else { return };
        let path = self.dir.join(id);
        let aside = path.with_extension(DAMAGED);
        let _ = std::fs::remove_dir_all(&aside);
        if let Err(error) = std::fs::rename(&path, &aside) {
            tracing::warn!(id, %error, "setting a template aside; removing it");
            let _ = std::fs::remove_dir_all(&path);
        }
        self.remove_with_extension(DAMAGED, KEPT_DAMAGED);
    }

    /// Removes a template. Whoever has it mapped keeps it. Gives whether it was there.
    pub fn remove(&self, id: &str) -> Result<bool, DiskError> {
        let _lock = self.lock()?;
        let path = self.dir.join(id);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Keeps `id` and the latest used beside it, `most` in all.
    fn evict(&self, id: &str, most: usize) {
        let others =
            self.entries(|path| path.extension().is_none() && path.is_dir() && !path.ends_with(id));
        for path in others.into_iter().skip(most.saturating_sub(1)) {
            tracing::info!(path = %path.display(), "removing the template that was not used for longest");
            let _ = std::fs::remove_dir_all(path);
        }
    }

    fn remove_with_extension(&self, extension: &str, keep: usize) {
        let found = self.entries(|path| path.extension().is_some_and(|e| e == extension));
        for path in found.into_iter().skip(keep) {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// The latest first.
    fn entries(&self, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let mut found: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| wanted(&entry.path()))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }
}

/// A new file that only our user can read: a guest's memory holds its token, and whatever it was warmed with.
fn create_private(path: &Path) -> Result<File, DiskError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path))
}

/// What stands beside a token, so that a damaged one is found before an agent refuses it.
fn token_digest(id: &str, token: &str) -> String {
    const_hex::encode(Sha256::digest(format!("{id} {token}")))
}

fn write_token(to: &Path, id: &str, token: &str) -> Result<(), DiskError> {
    let path = to.join(TOKEN);
    let mut file = create_private(&path)?;
    file.write_all(format!("{token} {}", token_digest(id, token)).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(at(&path))
}

fn read_token(from: &Path, id: &str) -> Result<String, DiskError> {
    let path = from.join(TOKEN);
    let text = std::fs::read(&path).map_err(at(&path))?;
    let text = String::from_utf8(text).map_err(|_| DiskError::Token)?;
    let (token, digest) = text.split_once(' ').ok_or(DiskError::Token)?;
    if digest != token_digest(id, token) {
        return Err(DiskError::Token);
    }
    Ok(token.to_owned())
}

fn open(path: &Path, origin: &Origin) -> Result<Snapshot, DiskError> {
    let file = |name: &str| {
        let path = path.join(name);
        File::open(&path).map_err(at(&path))
    };
    let (record, memory) = (file(RECORD)?, file(MEMORY)?);
    let copy = memory.try_clone().map_err(at(path))?;
    let template = Template::open(&record, copy)?;
    let saved = &template.record().key.origin;
    if saved != origin {
        return Err(DiskError::Origin {
            saved: saved.clone(),
        });
    }
    template.verify_memory()?;
    Ok(Snapshot {
        memory: Arc::new(memory),
        record: Arc::new(record),
        origin: origin.clone(),
    })
}

#[cfg(test)]
pub(in crate::vm) mod tests;
