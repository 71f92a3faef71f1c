//! Model-specific registers (MSRs): which ones are saved, and reading and writing them in chunks.

use kvm_bindings::{KVM_MAX_MSR_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use super::calls::CallCount;
use super::error::{SnapshotError, StateKind};

/// IA32_TIME_STAMP_COUNTER.
pub const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_ARCH_CAPABILITIES.
pub const ARCH_CAPABILITIES: u32 = 0x10a;

/// The most MSRs per ioctl (Linux, arch/x86/kvm/x86.c, MAX_IO_MSRS).
const CHUNK: usize = KVM_MAX_MSR_ENTRIES;

/// MTRRs (variable, fixed, default type), which KVM_GET_MSR_INDEX_LIST leaves out.
const MTRRS: [std::ops::RangeInclusive<u32>; 5] = [
    0x200..=0x20f,
    0x250..=0x250,
    0x258..=0x259,
    0x268..=0x26f,
    0x2ff..=0x2ff,
];
/// IA32_MC0_CTL, the distance to the next bank's, and KVM_MAX_MCE_BANKS. KVM_GET_MSR_INDEX_LIST leaves them out.
const MC0_CTL: u32 = 0x400;
const MC_STEP: usize = 4;
const MC_BANKS: u32 = 32;
/// Hyper-V's MSRs. Reading one makes KVM allocate Hyper-V state for the vCPU.
const HYPERV: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_00ff;
/// MSRs of features that no guest sees, with the host's values: IA32_FEATURE_CONTROL (VMX, SGX),
/// IA32_PERF_CAPABILITIES (PDCM) and the VMX capability MSRs.
const HIDDEN: [std::ops::RangeInclusive<u32>; 3] = [0x3a..=0x3a, 0x345..=0x345, 0x480..=0x491];

/// The MSRs to save.
#[derive(Clone, Debug, Default)]
pub struct MsrPolicy {
    /// Ascending, so that the TSC (0x10) is set before the TSC deadline (0x6e0), which is a TSC value.
    indices: Vec<u32>,
}

impl MsrPolicy {
    /// The MSRs of KVM_GET_MSR_INDEX_LIST, MTRRs and machine-check banks. IA32_ARCH_CAPABILITIES is included if
    /// `arch_capabilities`: the guest can read it.
    pub fn of(kvm: &Kvm, arch_capabilities: bool) -> Result<Self, SnapshotError> {
        let list = kvm
            .get_msr_index_list()
            .map_err(SnapshotError::get(StateKind::MsrIndexList))?;
        Ok(Self::select(list.as_slice(), arch_capabilities))
    }

    fn select(listed: &[u32], arch_capabilities: bool) -> Self {
        let mut indices: Vec<u32> = listed.to_vec();
        indices.extend(MTRRS.into_iter().flatten());
        indices.extend((MC0_CTL..).step_by(MC_STEP).take(MC_BANKS as usize));
        indices.retain(|index| {
            !HYPERV.contains(index)
                && !HIDDEN.iter().any(|range| range.contains(index))
                && (arch_capabilities || *index != ARCH_CAPABILITIES)
        });
        indices.sort_unstable();
        indices.dedup();
        Self { indices }
    }
}

/// Reads the MSRs of `policy` that this vCPU has.
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
        // KVM stops at an MSR that this vCPU does not have because its CPUID lacks the feature.
        let skipped = usize::from(count < chunk.len());
        rest = &rest[count + skipped..];
    }
    Ok(saved)
}

/// Reads one MSR; `None` if the vCPU does not have it.
pub fn read(vcpu: &VcpuFd, index: u32) -> Result<Option<u64>, SnapshotError> {
    let mut msrs = entries([(index, 0)].into_iter());
    let count = vcpu
        .get_msrs(&mut msrs)
        .map_err(SnapshotError::get(StateKind::Msrs))?;
    Ok(msrs.as_slice()[..count].first().map(|msr| msr.data))
}

/// Writes MSRs. An MSR that KVM refuses is an error.
pub fn restore(
    vcpu: &VcpuFd,
    registers: impl Iterator<Item = (u32, u64)>,
    calls: &mut CallCount,
) -> Result<(), SnapshotError> {
    let registers: Vec<_> = registers.collect();
    for chunk in registers.chunks(CHUNK) {
        let msrs = entries(chunk.iter().copied());
        let count = calls
            .ioctl(|| vcpu.set_msrs(&msrs))
            .map_err(SnapshotError::set(StateKind::Msrs))?;
        if let Some(&(index, value)) = chunk.get(count) {
            return Err(SnapshotError::Msr { index, value });
        }
    }
    Ok(())
}

/// The MSRs of `saved` that differ from `blank`, except TSC and TSC deadline. Both lists are in ascending order.
///
/// An MSR that is zero and missing in `blank` is left out: the saving host's KVM lists more MSRs, and its initial value
/// needs no restore.
pub fn changed<'a>(
    saved: &'a [(u32, u64)],
    blank: &'a [(u32, u64)],
) -> impl Iterator<Item = (u32, u64)> + 'a {
    let mut known = blank.iter().peekable();
    saved.iter().copied().filter(move |(index, value)| {
        while known.next_if(|(other, _)| other < index).is_some() {}
        let blank = known.peek().filter(|(other, _)| other == index);
        let same = match blank {
            Some((_, blank)) => blank == value,
            None => *value == 0,
        };
        !same && !matches!(*index, TSC | TSC_DEADLINE)
    })
}

fn entries(registers: impl ExactSizeIterator<Item = (u32, u64)>) -> Msrs {
    let entries: Vec<_> = registers
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();
    Msrs::from_entries(&entries).expect("a chunk has at most KVM_MAX_MSR_ENTRIES MSRs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(listed: &[u32]) -> Vec<u32> {
        MsrPolicy::select(listed, false).indices
    }

    #[test]
    fn mtrrs_and_machine_check_banks_are_saved() {
        let indices = selected(&[]);
        for index in [
            0x200, 0x20f, 0x250, 0x259, 0x268, 0x26f, 0x2ff, 0x400, 0x404, 0x47c,
        ] {
            assert!(indices.contains(&index), "{index:#x}");
        }
        assert!(!indices.contains(&0x480));
    }

    #[test]
    fn hyperv_and_hidden_msrs_are_not_read() {
        let indices = selected(&[0x3a, 0x345, 0x480, 0x4000_0000, 0x4000_00ff, 0xc000_0080]);
        let hidden = [0x3a, 0x345, 0x480, 0x4000_0000, 0x4000_00ff];
        assert!(!hidden.iter().any(|index| indices.contains(index)));
        assert!(indices.contains(&0xc000_0080));
    }

    #[test]
    fn arch_capabilities_are_saved_only_if_the_guest_sees_them() {
        let saves = |visible| {
            let policy = MsrPolicy::select(&[ARCH_CAPABILITIES], visible);
            policy.indices.contains(&ARCH_CAPABILITIES)
        };
        assert_eq!((saves(true), saves(false)), (true, false));
    }

    #[test]
    fn msrs_are_in_ascending_order_without_duplicates() {
        let indices = selected(&[0x6e0, 0x10, 0x2ff, 0x10]);
        assert!(indices.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn only_msrs_that_differ_are_written() {
        let saved = [(0x10, 5), (0x174, 1), (0x175, 2), (0x6e0, 9)];
        let blank = [(0x10, 1), (0x174, 1), (0x175, 0), (0x6e0, 0)];
        let written: Vec<_> = changed(&saved, &blank).collect();
        assert_eq!(written, [(0x175, 2)]);
    }

    #[test]
    fn an_msr_that_this_host_lacks_is_written_unless_zero() {
        let saved = [(0xe1, 0), (0x1c4, 1)];
        let written: Vec<_> = changed(&saved, &[]).collect();
        assert_eq!(written, [(0x1c4, 1)]);
    }
}
