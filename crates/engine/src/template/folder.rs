//! Templates on the disk: `templates/ID/` with the files `memory`, `state` and `token`. Zero pages of the memory
//! are holes, and forks map the file instead of reading it.
//!
//! Directories have mode 0700 and files 0600, because guest memory holds secrets such as the token. The token
//! opens no VM that runs a program: every fork receives a new one with its identity.
//!
//! Files are checked when they are loaded. A damaged template is set aside, and the engine builds a new one.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cloude_vmm::control::Origin;
use cloude_vmm::snapshot::{MemoryFileError, SnapshotError, Template, save_sparse};
use sha2::{Digest, Sha256};

use crate::files::{allocated_bytes, reopen};
use crate::snapshot::Snapshot;

const MEMORY: &str = "memory";
const STATE: &str = "state";
const TOKEN: &str = "token";
/// The extension of templates that were set aside, for a later look.
const DAMAGED: &str = "damaged";
/// The extension of a template that is being written, or whose writer was killed.
const PARTIAL: &str = "partial";
/// The number of set-aside templates that stay on the disk.
const MAX_DAMAGED: usize = 2;

/// A template could not be loaded or stored.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file operation failed. Templates that are not stored are built again after each start.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The failed system call's error.
        source: io::Error,
    },
    /// The memory file could not be written or read.
    #[error(transparent)]
    Memory(#[from] MemoryFileError),
    /// The VM state is damaged or of another version.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The token is damaged or another template's.
    #[error("the digest of its token is wrong")]
    Token,
    /// The VM was booted from other files than the template's id says.
    #[error("it was saved from another origin: {saved:?}")]
    Origin {
        /// The origin in the VM state.
        saved: Origin,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> FolderError + '_ {
    |source| FolderError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The directory of stored templates.
#[derive(Clone, Debug)]
pub struct TemplateFolder {
    dir: PathBuf,
}

impl TemplateFolder {
    /// `templates` below the cache folder. Created when it is first needed.
    pub fn new(cache_dir: &Path) -> Self {
        TemplateFolder {
            dir: cache_dir.join("templates"),
        }
    }

    /// Locks the directory against other threads and processes that change it.
    fn lock(&self) -> Result<File, FolderError> {
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

    /// Stores a template, and removes the least recently used ones beyond `max`. Returns the bytes that its memory
    /// takes on the disk. Blocks.
    pub fn store(
        &self,
        id: &str,
        snapshot: &Snapshot,
        token: &str,
        max: usize,
    ) -> Result<u64, FolderError> {
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
            // Renamed last, so that a directory without extension is complete.
            std::fs::rename(&partial, &path).map_err(at(&path))?;
            let dir = File::open(&self.dir).map_err(at(&self.dir))?;
            dir.sync_all().map_err(at(&self.dir))?;
            Ok(bytes)
        });
        if result.is_err() {
            let _ = std::fs::remove_dir_all(&partial);
        }
        self.evict(id, max);
        result
    }

    fn write(&self, to: &Path, snapshot: &Snapshot) -> Result<u64, FolderError> {
        let path = to.join(MEMORY);
        let memory = create_private(&path)?;
        let bytes = save_sparse(&snapshot.memory, &memory)?;
        memory.sync_all().map_err(at(&path))?;
        let path = to.join(STATE);
        let mut state = create_private(&path)?;
        let mut source = reopen(&snapshot.state).map_err(at(&path))?;
        io::copy(&mut source, &mut state).map_err(at(&path))?;
        state.sync_all().map_err(at(&path))?;
        Ok(bytes)
    }

    /// The template `id` with its token, if it is stored, undamaged and from `origin`. One that is not is set aside,
    /// which is logged. Reads the whole memory to compare its digest; blocks.
    pub fn load(&self, id: &str, origin: &Origin) -> Option<(Snapshot, String)> {
        let path = self.dir.join(id);
        if !path.is_dir() {
            return None;
        }
        let opened =
            open(&path, origin).and_then(|snapshot| Ok((snapshot, read_token(&path, id)?)));
        match opened {
            Ok(template) => {
                // The directory's mtime is the time of the last use, which `evict` goes by.
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

    /// The bytes that a template takes on the disk; 0 if it is not stored.
    pub fn bytes(&self, id: &str) -> u64 {
        let files = std::fs::read_dir(self.dir.join(id)).into_iter().flatten();
        files
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| allocated_bytes(&metadata))
            .sum()
    }

    /// Renames a template that must not be used again, because of `reason`.
    pub fn set_aside(&self, id: &str, reason: &str) {
        tracing::warn!(
            id,
            reason,
            "setting a stored template aside; a new one is built"
        );
        let Ok(_lock) = self.lock() else { return };
        let path = self.dir.join(id);
        let aside = path.with_extension(DAMAGED);
        let _ = std::fs::remove_dir_all(&aside);
        if let Err(error) = std::fs::rename(&path, &aside) {
            tracing::warn!(id, %error, "setting a template aside; removing it");
            let _ = std::fs::remove_dir_all(&path);
        }
        self.remove_with_extension(DAMAGED, MAX_DAMAGED);
    }

    /// Removes a template; existing mappings of its memory stay valid. True if it was stored.
    pub fn remove(&self, id: &str) -> Result<bool, FolderError> {
        let _lock = self.lock()?;
        let path = self.dir.join(id);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Removes the least recently used templates beyond `max`, but never `id`.
    fn evict(&self, id: &str, max: usize) {
        let others =
            self.entries(|path| path.extension().is_none() && path.is_dir() && !path.ends_with(id));
        for path in others.into_iter().skip(max.saturating_sub(1)) {
            tracing::info!(path = %path.display(), "removing the least recently used template");
            let _ = std::fs::remove_dir_all(path);
        }
    }

    fn remove_with_extension(&self, extension: &str, keep: usize) {
        let found = self.entries(|path| path.extension().is_some_and(|e| e == extension));
        for path in found.into_iter().skip(keep) {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// Directory entries by mtime, the latest first.
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

/// Creates a file with mode 0600.
fn create_private(path: &Path) -> Result<File, FolderError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path))
}

/// Stored beside the token, so that a damaged token is found before an agent refuses it.
fn token_digest(id: &str, token: &str) -> String {
    const_hex::encode(Sha256::digest(format!("{id} {token}")))
}

fn write_token(to: &Path, id: &str, token: &str) -> Result<(), FolderError> {
    let path = to.join(TOKEN);
    let mut file = create_private(&path)?;
    file.write_all(format!("{token} {}", token_digest(id, token)).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(at(&path))
}

fn read_token(from: &Path, id: &str) -> Result<String, FolderError> {
    let path = from.join(TOKEN);
    let text = std::fs::read(&path).map_err(at(&path))?;
    let text = String::from_utf8(text).map_err(|_| FolderError::Token)?;
    let (token, digest) = text.split_once(' ').ok_or(FolderError::Token)?;
    if digest != token_digest(id, token) {
        return Err(FolderError::Token);
    }
    Ok(token.to_owned())
}

fn open(path: &Path, origin: &Origin) -> Result<Snapshot, FolderError> {
    let file = |name: &str| {
        let path = path.join(name);
        File::open(&path).map_err(at(&path))
    };
    let (state, memory) = (file(STATE)?, file(MEMORY)?);
    let copy = memory.try_clone().map_err(at(path))?;
    let template = Template::open(&state, copy)?;
    let saved = &template.vm_state().key.origin;
    if saved != origin {
        return Err(FolderError::Origin {
            saved: saved.clone(),
        });
    }
    template.verify_memory()?;
    Ok(Snapshot {
        memory: Arc::new(memory),
        state: Arc::new(state),
        origin: origin.clone(),
    })
}

#[cfg(test)]
pub(in crate::template) mod tests;
