//! The identity of a template: everything that its VM boots from. An execution is forked only from a
//! template whose key equals its own, so that whatever changes a boot leads to another template.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cloude_vmm::control::Origin;
use sha2::{Digest, Sha256};

use crate::stamp::Stamp;
use crate::vm::fork::Shape;

/// Everything that a template depends on. Digests are SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// Digest of the kernel (`vmlinux`).
    pub kernel: String,
    /// Digest of the image's cpio.
    pub image: String,
    /// Digest of the boot segment that all VMs share: the agent and the kernel's modules.
    pub segment: String,
    /// Digest of the boot request and of the guest's boot configuration: command line, devices, CPU, and
    /// what the agent is told, without what each VM has of its own (token, names, addresses).
    pub boot: String,
    /// Digest of the language file.
    pub language: String,
    /// Digest of the worker's binary (`cloude-vmm`).
    pub worker: String,
    /// Cloude's own version.
    pub version: String,
    /// The machine.
    pub shape: Shape,
}

impl TemplateKey {
    /// A digest of all of it, 64 hexadecimal digits: the template's id, and the name of its files.
    pub fn id(&self) -> String {
        let mut digest = Sha256::new();
        let Shape {
            vcpus,
            memory_mib,
            network,
        } = self.shape;
        let shape = format!("{vcpus} {memory_mib} {network}");
        for part in [
            &self.kernel,
            &self.image,
            &self.segment,
            &self.boot,
            &self.language,
            &self.worker,
            &self.version,
            &shape,
        ] {
            // With its length, so that no two keys are the same text.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        const_hex::encode(digest.finalize())
    }

    /// What its snapshot says that it is of. The initramfs stands for everything but the kernel.
    pub fn origin(&self) -> Origin {
        Origin {
            kernel: self.kernel.clone(),
            initramfs: self.id(),
        }
    }
}

/// The digest of a file, read from its start to its end.
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

/// Digests of files. A file is read again when it has changed; otherwise the answer costs a stat(2).
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<HashMap<PathBuf, (Stamp, String)>>,
}

impl Digests {
    /// The digest of the file that is at `path` now. Reads all of it where it is not known: call this
    /// where blocking is allowed.
    pub fn of(&self, path: &Path) -> io::Result<String> {
        let now = Stamp::of(&std::fs::metadata(path)?);
        if let Some(digest) = self.if_known(path, now) {
            return Ok(digest);
        }
        let mut file = File::open(path)?;
        // Of the very file that is read: it may have been replaced since.
        let before = Stamp::of(&file.metadata()?);
        let digest = digest_of(&mut file)?;
        // One that is being written to gets a digest that nothing else will have; it is not remembered.
        if Stamp::of(&file.metadata()?) == before {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(path.to_owned(), (before, digest.clone()));
        }
        Ok(digest)
    }

    /// The digest of the file that is at `path` now, if it need not be read for that.
    pub fn known(&self, path: &Path) -> Option<String> {
        self.if_known(path, Stamp::of(&std::fs::metadata(path).ok()?))
    }

    fn if_known(&self, path: &Path, now: Stamp) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (stamp, digest) = known.get(path)?;
        (*stamp == now).then(|| digest.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TemplateKey {
        TemplateKey {
            kernel: "k".into(),
            image: "i".into(),
            segment: "a".into(),
            boot: "b".into(),
            language: "l".into(),
            worker: "w".into(),
            version: "1".into(),
            shape: Shape {
                vcpus: 1,
                memory_mib: 512,
                network: false,
            },
        }
    }

    #[test]
    fn each_part_of_a_key_makes_it_another() {
        let changes: [fn(&mut TemplateKey); 10] = [
            |key| key.kernel.push('x'),
            |key| key.image.push('x'),
            |key| key.segment.push('x'),
            |key| key.boot.push('x'),
            |key| key.language.push('x'),
            |key| key.worker.push('x'),
            |key| key.version.push('x'),
            |key| key.shape.vcpus = 2,
            |key| key.shape.memory_mib = 513,
            |key| key.shape.network = true,
        ];
        let mut ids: Vec<String> = changes
            .iter()
            .map(|change| {
                let mut key = key();
                change(&mut key);
                key.id()
            })
            .collect();
        ids.push(key().id());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), changes.len() + 1);
    }

    #[test]
    fn text_that_moves_from_one_part_to_the_next_makes_another_key() {
        let (mut a, mut b) = (key(), key());
        (a.kernel, a.image) = ("xy".into(), "z".into());
        (b.kernel, b.image) = ("x".into(), "yz".into());
        assert_ne!(a.id(), b.id());
    }

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
