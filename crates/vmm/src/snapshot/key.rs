//! The compatibility key: everything that must be equal where a snapshot is restored.
//!
//! The TSC frequency is not part of it. It is compared with a tolerance: [`super::tsc`].

use serde::{Deserialize, Serialize};

use super::error::Mismatch;
use crate::arch::x86_64::cpuid::{CpuBaseline, Leaf, differences, vendor_name};
use crate::vm::MachineShape;

/// The software in a snapshot. The host names it, since the worker does not know the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The host's digest of the kernel file.
    pub kernel: String,
    /// The host's identification of the initramfs. `clouded` passes the template's id, which covers everything else
    /// that the VM is booted and warmed with.
    pub initramfs: String,
}

/// The compatibility key of a snapshot. Every field must be equal for a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Kernel and initramfs.
    pub origin: Origin,
    /// The CPU model of the guest.
    pub cpu: CpuKey,
    /// 1 to [`crate::vm::MAX_VCPUS`].
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Names of the devices in the order in which they were attached, which decides their MMIO windows and GSIs.
    pub devices: Vec<String>,
}

/// The part of a key that depends on the host's processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuKey {
    /// The CPU baseline that was configured.
    pub baseline: CpuBaseline,
    /// The guest's CPUID leaves, without APIC ids, topology, caches and brand string. They are stored whole, so that
    /// a mismatch can name the features.
    pub leaves: Vec<Leaf>,
    /// IA32_ARCH_CAPABILITIES, from which a guest derives its mitigations; 0 if the guest cannot read it.
    pub arch_capabilities: u64,
}

impl Key {
    pub(crate) fn new(
        shape: MachineShape,
        origin: Origin,
        cpu: CpuKey,
        devices: Vec<String>,
    ) -> Self {
        Self {
            origin,
            cpu,
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            devices,
        }
    }

    /// Checks that a snapshot with this key can be restored into a VM with the key `here`.
    pub fn check(&self, here: &Self) -> Result<(), Mismatch> {
        let equal = |part, saved: &str, here: &str| match saved == here {
            true => Ok(()),
            false => Err(Mismatch::of(part, saved, here)),
        };
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
        let shape = MachineShape {
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

    /// The mismatch of a snapshot whose key differs by `change`, without its common prefix.
    fn refusal(change: impl Fn(&mut Key)) -> String {
        let mut saved = key();
        change(&mut saved);
        let error = saved.check(&key()).unwrap_err().to_string();
        let start = "the snapshot does not fit this machine: ";
        error.strip_prefix(start).unwrap().to_owned()
    }

    #[test]
    fn equal_keys_match() {
        assert_eq!(key().check(&key()), Ok(()));
    }

    #[test]
    fn a_mismatch_names_kernel_or_initramfs() {
        let kernel = refusal(|key| key.origin.kernel.push('x'));
        assert_eq!(kernel, "kernel saved kx, here k");
        let initramfs = refusal(|key| key.origin.initramfs.push('x'));
        assert_eq!(initramfs, "initramfs saved ix, here i");
    }

    #[test]
    fn a_mismatch_names_the_whole_machine_shape() {
        assert_eq!(
            refusal(|key| key.memory_mib = 128),
            "machine saved 2 vCPUs, 128 MiB and serial, here 2 vCPUs, 64 MiB and serial"
        );
        assert!(refusal(|key| key.vcpus = 1).starts_with("machine saved 1 vCPUs"));
        assert!(refusal(|key| key.devices.clear()).starts_with("machine saved "));
    }

    #[test]
    fn a_mismatch_names_the_cpu_features() {
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
    fn another_vendor_is_named_without_its_features() {
        assert_eq!(
            refusal(|key| key.cpu.leaves.remove(0).registers[1] = 0),
            "CPU vendor saved , here AuthenticAMD"
        );
    }

    #[test]
    fn a_mismatch_names_the_cpu_baseline() {
        assert_eq!(
            refusal(|key| key.cpu.baseline = CpuBaseline::V3),
            "CPU baseline saved x86-64-v3, here host"
        );
    }

    #[test]
    fn a_mismatch_names_arch_capabilities() {
        assert_eq!(
            refusal(|key| key.cpu.arch_capabilities = 0x2b),
            "IA32_ARCH_CAPABILITIES saved 0x2b, here 0x0"
        );
    }
}
