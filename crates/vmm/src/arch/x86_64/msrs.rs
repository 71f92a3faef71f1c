//! The MSRs that firmware sets.

use kvm_bindings::{Msrs, kvm_msr_entry};

/// IA32_MISC_ENABLE, and its bit for fast string operations.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// IA32_MTRR_DEF_TYPE: MTRRs enabled, default type write-back.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// The MSRs to set on every vCPU.
pub fn boot_msrs() -> Msrs {
    let entries = [
        (MISC_ENABLE, FAST_STRINGS),
        (MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK),
    ]
    .map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    });
    Msrs::from_entries(&entries).expect("two entries fit")
}
