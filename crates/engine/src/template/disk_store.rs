//! Stored templates for async callers: one operation at a time, off the async threads. A template whose forks
//! failed is never loaded again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::folder::TemplateFolder;
use super::key::TemplateKey;
use crate::config;
use crate::snapshot::Template;

/// The disk store. Does nothing if `pool.disk` is `off`.
pub struct DiskStore {
    folder: Option<TemplateFolder>,
    /// The largest number of stored templates.
    max: usize,
    /// Serializes reads and writes, so that no template is set aside while it is being written.
    lock: tokio::sync::Mutex<()>,
    /// Templates whose forks failed, with the reason. They are set aside instead of loaded.
    distrusted: Mutex<HashMap<String, String>>,
}

impl DiskStore {
    /// The store that `pool.disk` names.
    pub fn new(config: &config::Pool) -> Self {
        let dir = config.disk_dir();
        DiskStore {
            folder: dir.map(|dir: PathBuf| TemplateFolder::new(&dir)),
            max: config.templates,
            lock: tokio::sync::Mutex::default(),
            distrusted: Mutex::default(),
        }
    }

    fn distrusted(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Excludes a template whose forks failed from later loads.
    pub fn distrust(&self, id: &str, reason: &str) {
        self.distrusted().insert(id.to_owned(), reason.to_owned());
    }

    /// The template of `key`, if it is stored, undamaged and trusted.
    pub async fn load(&self, key: &TemplateKey) -> Option<Template> {
        let folder = self.folder.clone()?;
        let _lock = self.lock.lock().await;
        let id = key.id();
        let (origin, shape) = (key.origin(), key.shape);
        let distrusted = self.distrusted().remove(&id);
        let loaded = tokio::task::spawn_blocking(move || {
            if let Some(reason) = distrusted {
                folder.set_aside(&id, &reason);
                return None;
            }
            folder.load(&id, &origin)
        });
        // A panic in the closure, which the runtime reports, counts as not stored.
        let (snapshot, token) = loaded.await.ok()??;
        Some(Template {
            snapshot,
            token,
            shape,
            loaded: true,
            working_set: OnceLock::new(),
        })
    }

    /// Stores a template, unless its forks have failed meanwhile. Failures are logged; the template is then built
    /// again after the next start.
    pub async fn store(&self, id: String, template: Arc<Template>) {
        let Some(folder) = self.folder.clone() else {
            return;
        };
        let _lock = self.lock.lock().await;
        if self.distrusted().contains_key(&id) {
            return;
        }
        let max = self.max;
        let stored = tokio::task::spawn_blocking(move || {
            match folder.store(&id, &template.snapshot, &template.token, max) {
                Ok(bytes) => tracing::info!(template = id, bytes, "template stored on the disk"),
                Err(error) => {
                    tracing::warn!(template = id, %error, "storing a template on the disk");
                }
            }
        });
        let _ = stored.await;
    }

    /// The bytes that a template takes on the disk; 0 if it is not stored.
    pub async fn bytes(&self, id: &str) -> u64 {
        let Some(folder) = self.folder.clone() else {
            return 0;
        };
        let id = id.to_owned();
        let bytes = tokio::task::spawn_blocking(move || folder.bytes(&id)).await;
        bytes.unwrap_or(0)
    }

    /// Removes a template. True if it was stored.
    pub async fn remove(&self, id: &str) -> Result<bool, String> {
        let Some(folder) = self.folder.clone() else {
            return Ok(false);
        };
        let _lock = self.lock.lock().await;
        let id = id.to_owned();
        tokio::task::spawn_blocking(move || folder.remove(&id).map_err(|error| error.to_string()))
            .await
            .map_err(|error| error.to_string())?
    }
}

#[cfg(test)]
mod tests;
