//! Computes template keys.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cloude_protocol::language::Language;
use sha2::{Digest, Sha256};

use super::key::TemplateKey;
use crate::config::EngineConfig;
use crate::error::Failure;
use crate::files::Digests;
use crate::machine::MachineSpec;
use crate::worker::{SharedSegment, template_boot_text};

/// Computes the key of a machine from the files on the disk. An unchanged file costs a stat(2).
pub struct TemplateKeys {
    config: Arc<EngineConfig>,
    vmlinux: PathBuf,
    segment: Arc<SharedSegment>,
    digests: Arc<Digests>,
    /// The languages by name, each with its digest.
    languages: Mutex<HashMap<String, (Arc<Language>, String)>>,
}

impl TemplateKeys {
    /// No digest is known yet.
    pub fn new(
        config: Arc<EngineConfig>,
        segment: Arc<SharedSegment>,
        digests: Arc<Digests>,
    ) -> Self {
        TemplateKeys {
            vmlinux: config.vmlinux(),
            config,
            segment,
            digests,
            languages: Mutex::default(),
        }
    }

    /// The key of a template for this machine, from the files as they are now.
    pub async fn key(&self, spec: &MachineSpec) -> Result<TemplateKey, Failure> {
        let shape = spec.shape();
        let files = [&self.vmlinux, &spec.image, &self.config.vm.worker];
        let [kernel, image, worker] = self.file_digests(files).await?;
        let boot = template_boot_text(&self.config, shape)
            .map_err(|error| Failure::infrastructure(format!("the boot request: {error}")))?;
        Ok(TemplateKey {
            kernel,
            image,
            segment: self.segment.get().await?.digest,
            boot: const_hex::encode(Sha256::digest(boot)),
            language: self.language_digest(&spec.language)?,
            worker,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            owner: spec.template_owner.clone().unwrap_or_default(),
            shape,
        })
    }

    /// The digest of a language, computed once for each [`Arc`].
    fn language_digest(&self, language: &Arc<Language>) -> Result<String, Failure> {
        let mut known = self
            .languages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((of, digest)) = known.get(&language.name)
            && Arc::ptr_eq(of, language)
        {
            return Ok(digest.clone());
        }
        let text = serde_json::to_vec(&language.template_inputs())
            .map_err(|error| Failure::infrastructure(format!("the language file: {error}")))?;
        let digest = const_hex::encode(Sha256::digest(&text));
        let entry = (Arc::clone(language), digest.clone());
        known.insert(language.name.clone(), entry);
        Ok(digest)
    }

    async fn file_digests(&self, paths: [&PathBuf; 3]) -> Result<[String; 3], Failure> {
        // The common case: no file has changed.
        if let [Some(a), Some(b), Some(c)] = paths.map(|path| self.digests.known(path)) {
            return Ok([a, b, c]);
        }
        let (digests, paths) = (Arc::clone(&self.digests), paths.map(PathBuf::clone));
        let read = tokio::task::spawn_blocking(move || {
            let of = |path: &PathBuf| {
                let digest = digests.of(path);
                digest.map_err(|error| {
                    Failure::infrastructure(format!("reading {}: {error}", path.display()))
                })
            };
            let [a, b, c] = &paths;
            Ok([of(a)?, of(b)?, of(c)?])
        });
        read.await
            .map_err(|error| Failure::infrastructure(error.to_string()))?
    }
}
