//! The initramfs segment that all VMs share: the agent and the kernel's modules.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloude_initramfs_builder::boot_segment::{BootSegment, BootSegmentError};
use tokio::sync::Mutex;

use crate::config::vmlinux;
use crate::error::Failure;
use crate::files::{Digests, digest_of, reopen};

/// A packed segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// SHA-256 of its bytes, in hexadecimal.
    pub digest: String,
    /// The cpio archive, in a memfd.
    pub file: Arc<File>,
}

/// Packs the segment, and packs it again once the agent's binary or the kernel is replaced.
pub struct SharedSegment {
    agent: PathBuf,
    kernel: PathBuf,
    /// The modules of a kernel folder belong to this file: its change is theirs.
    vmlinux: PathBuf,
    digests: Arc<Digests>,
    /// The digests of the agent and the `vmlinux` that the segment was packed with, and the segment.
    packed: Mutex<([String; 2], Segment)>,
}

/// The segment could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Packing the agent or the modules failed.
    #[error(transparent)]
    Pack(#[from] BootSegmentError),
    /// Reading a file failed.
    #[error("reading the boot segment: {0}")]
    Read(#[from] std::io::Error),
}

impl SharedSegment {
    /// Packs the agent's binary and the modules of a kernel folder. Blocks.
    pub fn new(agent: &Path, kernel: &Path, digests: Arc<Digests>) -> Result<Self, SegmentError> {
        let vmlinux = vmlinux(kernel);
        let packed = (
            [digests.of(agent)?, digests.of(&vmlinux)?],
            pack(agent, kernel)?,
        );
        Ok(SharedSegment {
            agent: agent.to_owned(),
            kernel: kernel.to_owned(),
            vmlinux,
            digests,
            packed: Mutex::new(packed),
        })
    }

    /// The segment, with the agent's binary and the kernel's modules as they are on the disk now.
    pub async fn get(&self) -> Result<Segment, Failure> {
        let mut packed = self.packed.lock().await;
        // The common case: two stat(2) show that the files are unchanged.
        let now = [&self.agent, &self.vmlinux].map(|path| self.digests.known(path));
        if now.each_ref().map(Option::as_ref) == packed.0.each_ref().map(Some) {
            return Ok(packed.1.clone());
        }
        let (agent, kernel) = (self.agent.clone(), self.kernel.clone());
        let vmlinux = self.vmlinux.clone();
        let (digests, known) = (Arc::clone(&self.digests), packed.0.clone());
        let repacked = tokio::task::spawn_blocking(move || {
            let now = [digests.of(&agent)?, digests.of(&vmlinux)?];
            if now == known {
                return Ok(None);
            }
            Ok::<_, SegmentError>(Some((now, pack(&agent, &kernel)?)))
        });
        let repacked = repacked
            .await
            .map_err(|error| Failure::infrastructure(error.to_string()))?
            .map_err(|error| Failure::infrastructure(format!("the agent's segment: {error}")))?;
        if let Some(repacked) = repacked {
            *packed = repacked;
        }
        Ok(packed.1.clone())
    }
}

fn pack(agent: &Path, kernel: &Path) -> Result<Segment, SegmentError> {
    let file = BootSegment::new()
        .agent_file(agent)?
        .kernel(kernel)?
        .to_memfd()?;
    Ok(Segment {
        digest: digest_of(&mut reopen(&file)?)?,
        file: Arc::new(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with an agent and a kernel with one module.
    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (agent, kernel) = (dir.path().join("agent"), dir.path().join("kernel"));
        std::fs::write(&agent, "agent").unwrap();
        std::fs::create_dir_all(kernel.join("modules")).unwrap();
        std::fs::write(kernel.join("vmlinux"), "").unwrap();
        std::fs::write(kernel.join("modules/modules.list"), "one.ko\n").unwrap();
        std::fs::write(kernel.join("modules/one.ko"), "one").unwrap();
        (dir, agent, kernel)
    }

    fn segment(agent: &Path, kernel: &Path) -> SharedSegment {
        SharedSegment::new(agent, kernel, Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn a_changed_module_changes_the_digest() {
        let (_dir, agent, kernel) = files();
        let before = segment(&agent, &kernel).get().await.unwrap();
        std::fs::write(kernel.join("modules/one.ko"), "two").unwrap();
        let after = segment(&agent, &kernel).get().await.unwrap();
        assert_ne!(before.digest, after.digest);
    }

    #[tokio::test]
    async fn a_replaced_kernel_is_packed_with_its_modules() {
        let (_dir, agent, kernel) = files();
        let segment = segment(&agent, &kernel);
        let before = segment.get().await.unwrap();
        std::fs::write(kernel.join("modules/one.ko"), "two").unwrap();
        std::fs::write(kernel.join("vmlinux"), "another kernel").unwrap();
        assert_ne!(segment.get().await.unwrap().digest, before.digest);
    }

    #[tokio::test]
    async fn a_replaced_agent_is_packed_again() {
        let (_dir, agent, kernel) = files();
        let segment = segment(&agent, &kernel);
        let before = segment.get().await.unwrap();
        assert_eq!(segment.get().await.unwrap().digest, before.digest);
        std::fs::write(&agent, "another agent").unwrap();
        assert_ne!(segment.get().await.unwrap().digest, before.digest);
    }
}
