//! The disk's templates as a launcher uses them: off the async threads, one after the other, and never
//! one again whose forks failed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::disk::Disk;
use super::key::TemplateKey;
use crate::config;
use crate::vm::pool::Template;

/// What a launcher keeps on the disk, if anything.
pub struct Kept {
    disk: Option<Disk>,
    /// The most templates.
    most: usize,
    /// Held by whoever reads or writes: a template is not set aside while it is still being written.
    turn: tokio::sync::Mutex<()>,
    /// Templates whose forks failed, with the reason; set aside before they are built anew.
    distrusted: Mutex<HashMap<String, String>>,
}

impl Kept {
    /// As the pool's configuration says.
    pub fn new(config: &config::Pool) -> Self {
        let disk = config.disk_dir();
        Kept {
            disk: disk.map(|dir: PathBuf| Disk::new(&dir)),
            most: config.templates,
            turn: tokio::sync::Mutex::default(),
            distrusted: Mutex::default(),
        }
    }

    fn distrusted(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The forks of a template failed: it is not loaded any more.
    pub fn distrust(&self, id: &str, reason: &str) {
        self.distrusted().insert(id.to_owned(), reason.to_owned());
    }

    /// The template of that key, if the disk has it and nothing speaks against it.
    pub async fn load(&self, key: &TemplateKey) -> Option<Template> {
        let disk = self.disk.clone()?;
        let _turn = self.turn.lock().await;
        let id = key.id();
        let (origin, shape) = (key.origin(), key.shape);
        let distrusted = self.distrusted().remove(&id);
        let loaded = tokio::task::spawn_blocking(move || {
            if let Some(reason) = distrusted {
                disk.set_aside(&id, &reason);
                return None;
            }
            disk.load(&id, &origin)
        });
        // It fails only if it panicked, which the runtime has reported: the template is built.
        let (snapshot, token) = loaded.await.ok()??;
        Some(Template {
            snapshot,
            token,
            shape,
            loaded: true,
            working_set: OnceLock::new(),
        })
    }

    /// Keeps a template, unless its forks have failed meanwhile. What goes wrong is logged: the template
    /// is then built again after the next start.
    pub async fn keep(&self, id: String, template: Arc<Template>) {
        let Some(disk) = self.disk.clone() else {
            return;
        };
        let _turn = self.turn.lock().await;
        if self.distrusted().contains_key(&id) {
            return;
        }
        let most = self.most;
        let kept = tokio::task::spawn_blocking(move || {
            match disk.keep(&id, &template.snapshot, &template.token, most) {
                Ok(bytes) => tracing::info!(template = id, bytes, "template kept on the disk"),
                Err(error) => {
                    tracing::warn!(template = id, %error, "the template is not kept on the disk");
                }
            }
        });
        let _ = kept.await;
    }

    /// What a template takes on the disk, in bytes; 0 if it is not there.
    pub async fn bytes(&self, id: &str) -> u64 {
        let Some(disk) = self.disk.clone() else {
            return 0;
        };
        let id = id.to_owned();
        let bytes = tokio::task::spawn_blocking(move || disk.bytes(&id)).await;
        bytes.unwrap_or(0)
    }

    /// Removes a template from the disk. Gives whether it was there.
    pub async fn remove(&self, id: &str) -> Result<bool, String> {
        let Some(disk) = self.disk.clone() else {
            return Ok(false);
        };
        let _turn = self.turn.lock().await;
        let id = id.to_owned();
        tokio::task::spawn_blocking(move || disk.remove(&id).map_err(|error| error.to_string()))
            .await
            .map_err(|error| error.to_string())?
    }
}

#[cfg(test)]
mod tests;
