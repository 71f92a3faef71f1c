//! What a vCPU says of itself: what KVM supports, less what a guest of ours has no use for, plus the
//! topology.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// What the leaves depend on.
#[derive(Clone, Copy, Debug)]
pub struct CpuidSpec {
    /// The local APIC's id, which is the vCPU's index.
    pub apic_id: u8,
    /// How many vCPUs there are: cores of one package.
    pub vcpus: u8,
    /// The time stamp counter's frequency, if KVM knows it.
    pub tsc_khz: Option<u32>,
    /// KVM's local APIC has the TSC deadline timer (KVM_CAP_TSC_DEADLINE_TIMER).
    pub tsc_deadline: bool,
}

/// Leaf 1, ECX.
mod leaf1_ecx {
    pub const MONITOR: u32 = 1 << 3;
    pub const VMX: u32 = 1 << 5;
    pub const PDCM: u32 = 1 << 15;
    pub const TSC_DEADLINE: u32 = 1 << 24;
    pub const HYPERVISOR: u32 = 1 << 31;
}

/// Leaf 1, EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX.
const AMD_SVM: u32 = 1 << 2;
const AMD_PERFCTR: u32 = 0b11 << 23;
const AMD_TOPOLOGY: u32 = 1 << 22;
const AMD_CMP_LEGACY: u32 = 1 << 1;

const KVM_SIGNATURE: u32 = 0x4000_0000;
/// EAX: what KVM offers to guests that know of it (Linux, arch/x86/include/uapi/asm/kvm_para.h).
const KVM_FEATURES: u32 = 0x4000_0001;
/// KVM_FEATURE_ASYNC_PF, KVM_FEATURE_ASYNC_PF_VMEXIT and KVM_FEATURE_ASYNC_PF_INT.
const ASYNC_PF: u32 = 1 << 4 | 1 << 10 | 1 << 14;
/// Frequencies: EAX the TSC's, EBX the local APIC timer's, both in kHz.
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds.
const LAPIC_KHZ: u32 = 1_000_000;

/// Fits the leaves that KVM supports to one vCPU.
pub fn fit(supported: &CpuId, spec: CpuidSpec) -> CpuId {
    let mut entries: Vec<_> = supported
        .as_slice()
        .iter()
        .filter(|entry| !is_topology(entry.function) && entry.function != HYPERVISOR_TIMING)
        .copied()
        .collect();
    for entry in &mut entries {
        fit_leaf(entry, spec);
    }
    for leaf in topology_leaves(&entries) {
        entries.extend(topology(leaf, spec));
    }
    if let Some(tsc_khz) = spec.tsc_khz {
        entries.push(kvm_cpuid_entry2 {
            function: HYPERVISOR_TIMING,
            eax: tsc_khz,
            ebx: LAPIC_KHZ,
            ..Default::default()
        });
    }
    // Room is for KVM_MAX_CPUID_ENTRIES (256); KVM itself reports some 40.
    CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone())
}

fn fit_leaf(entry: &mut kvm_cpuid_entry2, spec: CpuidSpec) {
    match entry.function {
        1 => fit_features(entry, spec),
        4 | 0x8000_001d => fit_cache(entry, spec),
        // Performance counters, which a guest that runs for a moment does not need and which let it
        // watch its neighbours.
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        // A guest puts a process to sleep whose page the host is busy with, until an interrupt says that it
        // is there. Forks share their pages, and so does each have to wait for a moment for another's; a process
        // that misses the interrupt sleeps for ever. Nor does a fork then start with that interrupt, which KVM
        // sends when the registers are restored.
        KVM_FEATURES => entry.eax &= !ASYNC_PF,
        KVM_SIGNATURE if spec.tsc_khz.is_some() => entry.eax = entry.eax.max(HYPERVISOR_TIMING),
        0x8000_0001 => {
            entry.ecx &= !(AMD_SVM | AMD_PERFCTR);
            if spec.vcpus > 1 && entry.ecx & AMD_TOPOLOGY != 0 {
                entry.ecx |= AMD_CMP_LEGACY;
            }
        }
        // ECX: cores less one, and the bits of an APIC id that number them.
        0x8000_0008 => {
            entry.ecx = u32::from(spec.vcpus - 1) | core_bits(spec.vcpus) << 12;
        }
        // AMD: APIC id, core id with one thread each, node 0.
        0x8000_001e => {
            entry.eax = spec.apic_id.into();
            entry.ebx = spec.apic_id.into();
            entry.ecx = 0;
        }
        _ => {}
    }
}

fn fit_features(entry: &mut kvm_cpuid_entry2, spec: CpuidSpec) {
    use leaf1_ecx::*;
    entry.ecx |= HYPERVISOR;
    // No nested guests, no waiting in C-states of the host, no performance capabilities.
    entry.ecx &= !(MONITOR | VMX | PDCM | TSC_DEADLINE);
    if spec.tsc_deadline {
        entry.ecx |= TSC_DEADLINE;
    }
    entry.edx &= !HTT;
    if spec.vcpus > 1 {
        entry.edx |= HTT;
    }
    // APIC id, logical processors, and a cache line of 8 times 8 bytes.
    entry.ebx =
        u32::from(spec.apic_id) << 24 | u32::from(spec.vcpus) << 16 | 8 << 8 | entry.ebx & 0xff;
}

/// Says who shares a cache: a core has its own first and second level, all share the third.
fn fit_cache(entry: &mut kvm_cpuid_entry2, spec: CpuidSpec) {
    const TYPE: u32 = 0x1f;
    const SHARING: u32 = 0xfff << 14;
    const CORES: u32 = 0x3f << 26;
    if entry.eax & TYPE == 0 {
        return;
    }
    let level = entry.eax >> 5 & 7;
    entry.eax &= !SHARING;
    if level >= 3 {
        entry.eax |= u32::from(spec.vcpus - 1) << 14;
    }
    // The upper bits are reserved on AMD.
    if entry.function == 4 {
        entry.eax = entry.eax & !CORES | u32::from(spec.vcpus - 1) << 26;
    }
}

fn is_topology(function: u32) -> bool {
    function == 0xb || function == 0x1f
}

/// The topology leaves that the CPU's highest basic leaf reaches.
fn topology_leaves(entries: &[kvm_cpuid_entry2]) -> impl Iterator<Item = u32> + use<> {
    let highest = entries
        .iter()
        .find(|entry| entry.function == 0)
        .map_or(0, |entry| entry.eax);
    [0xb, 0x1f].into_iter().filter(move |leaf| *leaf <= highest)
}

/// The extended topology: one thread a core, all cores in one package.
fn topology(function: u32, spec: CpuidSpec) -> [kvm_cpuid_entry2; 3] {
    const SIGNIFICANT_INDEX: u32 = kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    // ECX: the level's kind (1 thread, 2 core, 0 none), then its number.
    let level = |index: u32, kind: u32, shift: u32, count: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: SIGNIFICANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind << 8 | index,
        edx: spec.apic_id.into(),
        ..Default::default()
    };
    [
        level(0, 1, 0, 1),
        level(1, 2, core_bits(spec.vcpus), spec.vcpus.into()),
        level(2, 0, 0, 0),
    ]
}

/// How many bits of an APIC id number the cores.
fn core_bits(vcpus: u8) -> u32 {
    u32::from(vcpus).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let leaf = |function, eax, ecx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ecx,
            edx,
            ..Default::default()
        };
        CpuId::from_entries(&[
            leaf(0, 0x1f, 0, 0),
            leaf(1, 0, leaf1_ecx::VMX | leaf1_ecx::MONITOR, HTT),
            leaf(4, 3 << 5 | 3 | 0xfff << 14, 0, 0),
            leaf(0xb, 7, 7, 7),
            leaf(KVM_SIGNATURE, 0x4000_0001, 0, 0),
            leaf(KVM_FEATURES, u32::MAX, 0, 0),
        ])
        .unwrap()
    }

    fn spec() -> CpuidSpec {
        CpuidSpec {
            apic_id: 2,
            vcpus: 3,
            tsc_khz: Some(2_000_000),
            tsc_deadline: true,
        }
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap()
    }

    #[test]
    fn a_vcpu_knows_its_id_and_that_it_is_a_guest() {
        let cpuid = fit(&supported(), spec());
        let features = leaf(&cpuid, 1, 0);
        assert_eq!(features.ebx >> 24, 2);
        assert_eq!(features.ebx >> 16 & 0xff, 3);
        assert_eq!(
            features.ecx,
            leaf1_ecx::HYPERVISOR | leaf1_ecx::TSC_DEADLINE
        );
    }

    #[test]
    fn the_topology_is_cores_of_one_thread_in_one_package() {
        let cpuid = fit(&supported(), spec());
        for function in [0xb, 0x1f] {
            let core = leaf(&cpuid, function, 1);
            assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (2, 3, 0x201, 2));
        }
        assert_eq!(leaf(&cpuid, 4, 0).eax >> 14 & 0xfff, 2);
    }

    #[test]
    fn processes_are_not_put_to_sleep_for_pages_of_the_host() {
        let features = leaf(&fit(&supported(), spec()), KVM_FEATURES, 0).eax;
        assert_eq!(features, !(1 << 4 | 1 << 10 | 1 << 14));
    }

    #[test]
    fn a_single_vcpu_has_no_hyper_threading() {
        let spec = CpuidSpec {
            vcpus: 1,
            apic_id: 0,
            ..spec()
        };
        let cpuid = fit(&supported(), spec);
        assert_eq!(leaf(&cpuid, 1, 0).edx & HTT, 0);
        assert_eq!(leaf(&cpuid, 0xb, 1).eax, 0);
    }

    #[test]
    fn the_frequency_leaf_is_there_only_when_the_frequency_is_known() {
        let with = fit(&supported(), spec());
        assert_eq!(leaf(&with, HYPERVISOR_TIMING, 0).eax, 2_000_000);
        assert_eq!(leaf(&with, KVM_SIGNATURE, 0).eax, HYPERVISOR_TIMING);
        let without = fit(
            &supported(),
            CpuidSpec {
                tsc_khz: None,
                ..spec()
            },
        );
        assert_eq!(leaf(&without, KVM_SIGNATURE, 0).eax, 0x4000_0001);
    }
}
