//! What a snapshot fits to: a machine of the same shape, on the same kind of CPU and KVM, of the same
//! guest software and the same version of this crate.

use kvm_bindings::CpuId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::vm::Shape;

/// Where a snapshot comes from, in words of whoever asks for it: the worker cannot know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// A digest of the kernel.
    pub kernel: String,
    /// A digest of the initramfs: image and agent.
    pub initramfs: String,
    /// The kind of KVM: `hardware` or `pvm` ([`crate::probe::KvmKind`]).
    pub kvm: String,
}

/// The compatibility key of a record. All of it has to be equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The version of this crate.
    pub version: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The CPU's vendor, of 12 letters.
    pub cpu_vendor: String,
    /// SHA-256 of what CPUID says on every vCPU.
    pub cpu_features: [u8; 32],
    /// 1 to [`crate::vm::MAX_VCPUS`].
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u64,
    /// The devices' names, in the order of their windows and interrupts.
    pub devices: Vec<String>,
}

/// A snapshot does not fit. Each says what it was saved as and what is here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mismatch {
    /// Another version of this program saved it. Build it anew.
    #[error("the snapshot was saved by version {saved}, and this is {here}")]
    Version {
        /// As saved.
        saved: String,
        /// As here.
        here: String,
    },
    /// The kernel is another one. Build it anew.
    #[error("the snapshot was saved of kernel {saved}, not {here}")]
    Kernel {
        /// As saved.
        saved: String,
        /// As here.
        here: String,
    },
    /// The initramfs is another one: a new image or agent. Build it anew.
    #[error("the snapshot was saved of initramfs {saved}, not {here}")]
    Initramfs {
        /// As saved.
        saved: String,
        /// As here.
        here: String,
    },
    /// The host's KVM is of another kind. Build it anew.
    #[error("the snapshot was saved on a KVM of kind {saved}, and this is {here}")]
    Kvm {
        /// As saved.
        saved: String,
        /// As here.
        here: String,
    },
    /// The CPU is another one, or its microcode or KVM offers other features. Build it anew.
    #[error(
        "the snapshot was saved on another CPU ({saved}, features {saved_features}), and this is {here}, features {here_features}"
    )]
    Cpu {
        /// The vendor, as saved.
        saved: String,
        /// The start of the features' digest, as saved.
        saved_features: String,
        /// The vendor here.
        here: String,
        /// The start of the features' digest here.
        here_features: String,
    },
    /// The machine has another shape. Take a shell of the snapshot's.
    #[error("the snapshot is of a machine with {saved}, not {here}")]
    Shape {
        /// As saved.
        saved: String,
        /// As here.
        here: String,
    },
}

impl Key {
    pub(crate) fn new(
        shape: Shape,
        origin: Origin,
        cpuids: &[CpuId],
        devices: Vec<String>,
    ) -> Self {
        let mut digest = Sha256::new();
        for cpuid in cpuids {
            for leaf in cpuid.as_slice() {
                for word in [
                    leaf.function,
                    leaf.index,
                    leaf.flags,
                    leaf.eax,
                    leaf.ebx,
                    leaf.ecx,
                    leaf.edx,
                ] {
                    digest.update(word.to_le_bytes());
                }
            }
        }
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            origin,
            cpu_vendor: cpuids.first().map(vendor).unwrap_or_default(),
            cpu_features: digest.finalize().into(),
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            devices,
        }
    }

    /// Whether a snapshot with this key goes on in the machine with the key `here`.
    pub fn check(&self, here: &Self) -> Result<(), Mismatch> {
        let pair = |saved: &str, here: &str| (saved.to_owned(), here.to_owned());
        if self.version != here.version {
            let (saved, here) = pair(&self.version, &here.version);
            return Err(Mismatch::Version { saved, here });
        }
        // Before the CPU, whose topology is part of its features.
        if self.shape() != here.shape() {
            let (saved, here) = (self.shape(), here.shape());
            return Err(Mismatch::Shape { saved, here });
        }
        if self.cpu_vendor != here.cpu_vendor || self.cpu_features != here.cpu_features {
            return Err(Mismatch::Cpu {
                saved: self.cpu_vendor.clone(),
                saved_features: short(&self.cpu_features),
                here: here.cpu_vendor.clone(),
                here_features: short(&here.cpu_features),
            });
        }
        self.origin.check(&here.origin)
    }

    fn shape(&self) -> String {
        let Self {
            vcpus,
            memory_mib,
            devices,
            ..
        } = self;
        format!("{vcpus} vCPUs, {memory_mib} MiB and {}", devices.join(", "))
    }
}

impl Origin {
    fn check(&self, here: &Self) -> Result<(), Mismatch> {
        let pair = |saved: &str, here: &str| (saved.to_owned(), here.to_owned());
        if self.kernel != here.kernel {
            let (saved, here) = pair(&self.kernel, &here.kernel);
            return Err(Mismatch::Kernel { saved, here });
        }
        if self.initramfs != here.initramfs {
            let (saved, here) = pair(&self.initramfs, &here.initramfs);
            return Err(Mismatch::Initramfs { saved, here });
        }
        if self.kvm != here.kvm {
            let (saved, here) = pair(&self.kvm, &here.kvm);
            return Err(Mismatch::Kvm { saved, here });
        }
        Ok(())
    }
}

fn short(digest: &[u8; 32]) -> String {
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Leaf 0: EBX, EDX and ECX spell it.
fn vendor(cpuid: &CpuId) -> String {
    let leaf = cpuid.as_slice().iter().find(|leaf| leaf.function == 0);
    let words = leaf.map_or([0; 3], |leaf| [leaf.ebx, leaf.edx, leaf.ecx]);
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let origin = Origin {
            kernel: "k".into(),
            initramfs: "i".into(),
            kvm: "pvm".into(),
        };
        let shape = Shape {
            vcpus: 2,
            memory_mib: 64,
        };
        Key::new(
            shape,
            origin,
            &[CpuId::new(1).unwrap()],
            vec!["serial".into()],
        )
    }

    #[test]
    fn a_key_fits_itself() {
        assert_eq!(key().check(&key()), Ok(()));
    }

    #[test]
    fn each_difference_is_told_by_its_name() {
        let check = |change: &dyn Fn(&mut Key)| {
            let mut other = key();
            change(&mut other);
            other.check(&key()).unwrap_err()
        };
        assert!(matches!(
            check(&|k| k.version = "0".into()),
            Mismatch::Version { .. }
        ));
        assert!(matches!(
            check(&|k| k.origin.kernel = "x".into()),
            Mismatch::Kernel { .. }
        ));
        assert!(matches!(
            check(&|k| k.origin.initramfs = "x".into()),
            Mismatch::Initramfs { .. }
        ));
        assert!(matches!(
            check(&|k| k.origin.kvm = "x".into()),
            Mismatch::Kvm { .. }
        ));
        assert!(matches!(
            check(&|k| k.cpu_features[3] ^= 1),
            Mismatch::Cpu { .. }
        ));
        assert!(matches!(
            check(&|k| k.cpu_vendor = "x".into()),
            Mismatch::Cpu { .. }
        ));
        assert!(matches!(check(&|k| k.vcpus = 1), Mismatch::Shape { .. }));
        assert!(matches!(
            check(&|k| k.memory_mib = 1),
            Mismatch::Shape { .. }
        ));
        assert!(matches!(
            check(&|k| k.devices.clear()),
            Mismatch::Shape { .. }
        ));
    }

    #[test]
    fn a_mismatch_says_both_sides() {
        let mut other = key();
        other.memory_mib = 128;
        let message = other.check(&key()).unwrap_err().to_string();
        assert_eq!(
            message,
            "the snapshot is of a machine with 2 vCPUs, 128 MiB and serial, not 2 vCPUs, 64 MiB and serial"
        );
    }
}
