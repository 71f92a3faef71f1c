//! The configuration that a VM is created with.

use crate::arch::x86_64::cpuid::CpuBaseline;

/// The most vCPUs that a VM may have.
pub const MAX_VCPUS: u8 = 8;

/// Number of vCPUs, memory size and CPU model of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineShape {
    /// 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Guest memory in MiB: [`crate::memory::MIN_MIB`] up to the host's memory.
    pub memory_mib: u64,
    /// The CPU features that the guest sees.
    pub cpu_baseline: CpuBaseline,
}
