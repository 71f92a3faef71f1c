//! Model-specific registers: all that KVM lists, in chunks, with every refusal told.

use kvm_bindings::{KVM_MAX_MSR_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use super::{SnapshotError, StateKind, Trace};

/// Registers whose own saved value KVM may refuse to take back, without the guest noticing.
///
/// IA32_FEATURE_CONTROL (0x3a) is listed by every KVM, and a KVM without VMX for its guests (PVM among
/// them) answers a write with an error. It has no meaning for a guest without VMX: it reads as zero or
/// locked either way, in the restored VM as in the saved one. Nothing else is on the list.
pub const REFUSED_ON_PVM: &[u32] = &[0x3a];

/// The most registers in one request (Linux, arch/x86/kvm/x86.c, MAX_IO_MSRS).
const CHUNK: usize = KVM_MAX_MSR_ENTRIES;

/// Which registers to save.
#[derive(Clone, Debug, Default)]
pub struct MsrPolicy {
    /// By index, ascending: the TSC (0x10) is set before the TSC deadline (0x6e0) that counts in it.
    indices: Vec<u32>,
}

impl MsrPolicy {
    /// All that KVM lists (KVM_GET_MSR_INDEX_LIST).
    pub fn of(kvm: &Kvm) -> Result<Self, SnapshotError> {
        let list = kvm
            .get_msr_index_list()
            .map_err(SnapshotError::get(StateKind::MsrIndexList))?;
        let mut indices = list.as_slice().to_vec();
        indices.sort_unstable();
        indices.dedup();
        Ok(Self { indices })
    }
}

/// Reads the registers of `policy` that this vCPU has.
pub fn save(vcpu: &VcpuFd, policy: &MsrPolicy) -> Result<Vec<(u32, u64)>, SnapshotError> {
    let mut saved = Vec::with_capacity(policy.indices.len());
    let mut rest = policy.indices.as_slice();
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(CHUNK)];
        let mut msrs = entries(chunk.iter().map(|index| (*index, 0)));
        let count = vcpu
            .get_msrs(&mut msrs)
            .map_err(SnapshotError::get(StateKind::Msrs))?;
        saved.extend(
            msrs.as_slice()[..count]
                .iter()
                .map(|msr| (msr.index, msr.data)),
        );
        // The one after the last that was read is listed and yet not this vCPU's, for its CPUID lacks
        // the feature.
        let skipped = usize::from(count < chunk.len());
        rest = &rest[count + skipped..];
    }
    Ok(saved)
}

/// Sets registers. What KVM refuses is an error, but for [`REFUSED_ON_PVM`].
pub fn restore(
    vcpu: &VcpuFd,
    registers: impl Iterator<Item = (u32, u64)>,
    trace: &mut Trace,
) -> Result<(), SnapshotError> {
    let registers: Vec<_> = registers.collect();
    let mut rest = registers.as_slice();
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(CHUNK)];
        let msrs = entries(chunk.iter().copied());
        let count = trace
            .ioctl(|| vcpu.set_msrs(&msrs))
            .map_err(SnapshotError::set(StateKind::Msrs))?;
        rest = &rest[count..];
        if count < chunk.len() {
            let (index, value) = rest[0];
            if !REFUSED_ON_PVM.contains(&index) {
                return Err(SnapshotError::Msr { index, value });
            }
            rest = &rest[1..];
        }
    }
    Ok(())
}

fn entries(registers: impl ExactSizeIterator<Item = (u32, u64)>) -> Msrs {
    let entries: Vec<_> = registers
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();
    Msrs::from_entries(&entries).expect("a chunk has at most KVM_MAX_MSR_ENTRIES registers")
}
