//! What has to be equal where a snapshot is loaded: version, software, CPU model and the machine's shape.
//!
//! The TSC frequency is compared apart, with a tolerance: [`super::tsc`].

use serde::{Deserialize, Serialize};

use crate::arch::x86_64::cpuid::{CpuBaseline, Leaf, differences, vendor_name};
use crate::vm::Shape;

/// The software that a snapshot was saved of, as the host calls it: the worker cannot know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// A digest of the kernel.
    pub kernel: String,
    /// A digest of the initramfs: image and agent.
    pub initramfs: String,
}

/// The compatibility key of a record. All of it has to be equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The version of this crate.
    pub version: String,
    /// The software.
    pub origin: Origin,
    /// The CPU model.
    pub cpu: CpuKey,
    /// 1 to [`crate::vm::MAX_VCPUS`].
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u64,
    /// The devices' names, in the order of their windows and interrupts.
    pub devices: Vec<String>,
}

/// The part of a key that the processor decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuKey {
    /// The baseline that the guest's CPU was made of.
    pub baseline: CpuBaseline,
    /// The guest's CPUID, without ids, topology, caches and the brand string. Leaves, not a digest, so that a
    /// refusal can name the features.
    pub leaves: Vec<Leaf>,
    /// IA32_ARCH_CAPABILITIES, by which a guest chooses its mitigations; 0 if it cannot read it.
    pub arch_capabilities: u64,
}

/// A snapshot does not fit: build it anew, or load it where it fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot does not fit this machine: {part} saved {saved}, here {here}")]
pub struct Mismatch {
    /// The first part of the key that differs.
    pub part: &'static str,
    /// Its value in the snapshot.
    pub saved: String,
    /// Its value here.
    pub here: String,
}

impl Mismatch {
    fn of(part: &'static str, saved: impl ToString, here: impl ToString) -> Self {
        Self {
            part,
            saved: saved.to_string(),
            here: here.to_string(),
        }
    }
}

impl Key {
    pub(crate) fn new(shape: Shape, origin: Origin, cpu: CpuKey, devices: Vec<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            origin,
            cpu,
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            devices,
        }
    }

    /// Whether a snapshot with this key can be loaded by a machine with the key `here`.
    pub fn check(&self, here: &Self) -> Result<(), Mismatch> {
        let equal = |part, saved: &str, here: &str| match saved == here {
            true => Ok(()),
            false => Err(Mismatch::of(part, saved, here)),
        };
        equal("version", &self.version, &here.version)?;
        equal("machine", &self.shape(), &here.shape())?;
        self.cpu.check(&here.cpu)?;
        equal("kernel", &self.origin.kernel, &here.origin.kernel)?;
        equal("initramfs", &self.origin.initramfs, &here.origin.initramfs)
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

impl CpuKey {
    fn check(&self, here: &Self) -> Result<(), Mismatch> {
        let [saved_vendor, here_vendor] = [self, here].map(|key| vendor_name(&key.leaves));
        if saved_vendor != here_vendor {
            return Err(Mismatch::of("CPU vendor", saved_vendor, here_vendor));
        }
        if self.baseline != here.baseline {
            return Err(Mismatch::of("CPU baseline", self.baseline, here.baseline));
        }
        if let Some((saved, here)) = differences(&self.leaves, &here.leaves) {
            return Err(Mismatch::of("CPU", saved, here));
        }
        if self.arch_capabilities != here.arch_capabilities {
            let [saved, here] = [self, here].map(|key| format!("{:#x}", key.arch_capabilities));
            return Err(Mismatch::of("IA32_ARCH_CAPABILITIES", saved, here));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVX512F: u32 = 1 << 16;

    fn key() -> Key {
        let origin = Origin {
            kernel: "k".into(),
            initramfs: "i".into(),
        };
        let shape = Shape {
            vcpus: 2,
            memory_mib: 64,
            cpu_baseline: CpuBaseline::Host,
        };
        let cpu = CpuKey {
            leaves: vec![
                Leaf::new(0, 0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
                Leaf::new(7, 0, [0, AVX512F, 0, 0]),
            ],
            ..CpuKey::default()
        };
        Key::new(shape, origin, cpu, vec!["serial".into()])
    }

    /// The message of the snapshot with the key after `change`, loaded by a machine with the key.
    fn refusal(change: impl Fn(&mut Key)) -> String {
        let mut saved = key();
        change(&mut saved);
        let error = saved.check(&key()).unwrap_err().to_string();
        let start = "the snapshot does not fit this machine: ";
        error.strip_prefix(start).unwrap().to_owned()
    }

    #[test]
    fn a_key_fits_itself() {
        assert_eq!(key().check(&key()), Ok(()));
    }

    #[test]
    fn another_version_is_named() {
        let here = env!("CARGO_PKG_VERSION");
        let expected = format!("version saved 0, here {here}");
        assert_eq!(refusal(|key| key.version = "0".into()), expected);
    }

    #[test]
    fn other_software_is_named() {
        let kernel = refusal(|key| key.origin.kernel.push('x'));
        assert_eq!(kernel, "kernel saved kx, here k");
        let initramfs = refusal(|key| key.origin.initramfs.push('x'));
        assert_eq!(initramfs, "initramfs saved ix, here i");
    }

    #[test]
    fn another_shape_is_named_with_all_of_it() {
        assert_eq!(
            refusal(|key| key.memory_mib = 128),
            "machine saved 2 vCPUs, 128 MiB and serial, here 2 vCPUs, 64 MiB and serial"
        );
        assert!(refusal(|key| key.vcpus = 1).starts_with("machine saved 1 vCPUs"));
        assert!(refusal(|key| key.devices.clear()).starts_with("machine saved "));
    }

    #[test]
    fn a_feature_that_differs_is_named() {
        assert_eq!(
            refusal(|key| key.cpu.leaves[1].registers[1] |= 1 << 28),
            "CPU saved with avx512cd, here without avx512cd"
        );
        assert_eq!(
            refusal(|key| key.cpu.leaves[1].registers[1] = 0),
            "CPU saved without avx512f, here with avx512f"
        );
    }

    #[test]
    fn another_vendor_is_named_and_not_its_features() {
        assert_eq!(
            refusal(|key| key.cpu.leaves.remove(0).registers[1] = 0),
            "CPU vendor saved , here AuthenticAMD"
        );
    }

    #[test]
    fn another_baseline_is_named() {
        assert_eq!(
            refusal(|key| key.cpu.baseline = CpuBaseline::V3),
            "CPU baseline saved x86-64-v3, here host"
        );
    }

    #[test]
    fn other_arch_capabilities_are_named() {
        assert_eq!(
            refusal(|key| key.cpu.arch_capabilities = 0x2b),
            "IA32_ARCH_CAPABILITIES saved 0x2b, here 0x0"
        );
    }
}
