//! The key of a template: everything that its VM is booted and warmed from. An execution is forked only from a
//! template of its own key, so a change of any part leads to a new template.

use cloude_vmm::control::Origin;
use sha2::{Digest, Sha256};

use crate::machine::MachineShape;

/// All parts. Digests are SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// Digest of the kernel (`vmlinux`).
    pub kernel: String,
    /// Digest of the language image.
    pub image: String,
    /// Digest of the shared boot segment: the agent and the kernel's modules.
    pub segment: String,
    /// Digest of the boot request and of the agent's configuration, without token, names and addresses.
    pub boot: String,
    /// Digest of the parts of the language that a template depends on
    /// ([`cloude_protocol::language::Language::template_inputs`]).
    pub language: String,
    /// Digest of the worker binary (`cloude-vmm`).
    pub worker: String,
    /// Cloude's version.
    pub version: String,
    /// The owner; empty if the template is shared ([`crate::MachineSpec::template_owner`]).
    pub owner: String,
    /// The machine configuration.
    pub shape: MachineShape,
}

impl TemplateKey {
    /// The template's id: a digest of all parts, 64 hexadecimal digits.
    pub fn id(&self) -> String {
        let mut digest = Sha256::new();
        let MachineShape {
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
            &self.owner,
            &shape,
        ] {
            // The length first, so that two keys never hash the same bytes.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        const_hex::encode(digest.finalize())
    }

    /// The origin that a snapshot of this key records. `initramfs` holds the id, which covers the other parts.
    pub fn origin(&self) -> Origin {
        Origin {
            kernel: self.kernel.clone(),
            initramfs: self.id(),
        }
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
            owner: String::new(),
            shape: MachineShape {
                vcpus: 1,
                memory_mib: 512,
                network: false,
            },
        }
    }

    #[test]
    fn a_change_of_any_part_changes_the_id() {
        let changes: [fn(&mut TemplateKey); 11] = [
            |key| key.kernel.push('x'),
            |key| key.image.push('x'),
            |key| key.segment.push('x'),
            |key| key.boot.push('x'),
            |key| key.language.push('x'),
            |key| key.worker.push('x'),
            |key| key.version.push('x'),
            |key| key.owner.push('x'),
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
    fn moving_text_between_parts_changes_the_id() {
        let (mut a, mut b) = (key(), key());
        (a.kernel, a.image) = ("xy".into(), "z".into());
        (b.kernel, b.image) = ("x".into(), "yz".into());
        assert_ne!(a.id(), b.id());
    }
}
