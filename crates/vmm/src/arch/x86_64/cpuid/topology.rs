//! The leaves that depend on the vCPU and on the number of vCPUs: APIC ids, topology and shared caches.
//!
//! The machine is one package of cores with one thread each. Its caches are equal on every host: KVM reports the caches
//! of the core on which the ioctl happens to run, and the cores of a hybrid processor differ.

use super::baseline::Vendor;
use super::leaf::{self, Leaf, Register};

/// Leaf 1, EDX: more than one logical processor in the package.
const HT: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX.
const CMP_LEGACY: u32 = 1 << 1;
const TOPOEXT: u32 = 1 << 22;

/// A cache, with the fields of leaf 4.
struct Cache {
    /// 1 data, 2 instruction, 3 unified.
    kind: u32,
    level: u32,
    ways: u32,
    sets: u32,
}

/// L1d and L1i of 32 KiB, L2 of 1 MiB and L3 of 16 MiB, with lines of 64 bytes.
const CACHES: [Cache; 4] = [
    cache(1, 1, 8, 64),
    cache(2, 1, 8, 64),
    cache(3, 2, 16, 1024),
    cache(3, 3, 16, 16384),
];

const fn cache(kind: u32, level: u32, ways: u32, sets: u32) -> Cache {
    Cache {
        kind,
        level,
        ways,
        sets,
    }
}

/// Leaf 2: caches are described by leaf 4.
const SEE_LEAF_4: [u32; 4] = [0x00ff_0001, 0, 0, 0];
/// AMD's leaf 0x8000_0005: TLBs of 64 entries, L1d and L1i.
const AMD_L1: [u32; 4] = [0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140];
/// Leaf 0x8000_0006, ECX: the L2 cache; KiB from bit 16, associativity 16 ways (code 8), lines of 64 bytes.
const L2: u32 = 1024 << 16 | 8 << 12 | 64;
/// AMD's leaf 0x8000_0006: TLBs of 512 entries, L2 with one line per tag, L3 in units of 512 KiB from bit 18.
const AMD_L2: [u32; 4] = [
    0,
    0x4200_4200,
    L2 | 1 << 8,
    32 << 18 | 8 << 12 | 1 << 8 | 64,
];

/// The complete list of one vCPU: `leaves` and the leaves of this module.
pub fn complete(leaves: &[Leaf], vendor: Vendor, apic_id: u8, vcpus: u8) -> Vec<Leaf> {
    let mut all = leaves.to_vec();
    let (id, cores) = (u32::from(apic_id), u32::from(vcpus));
    let more_than_one = vcpus > 1;
    let topoext = leaf::register(leaves, 0x8000_0001, 0, Register::Ecx) & TOPOEXT != 0;
    for leaf in &mut all {
        match leaf.function {
            1 => {
                *leaf.get_mut(Register::Ebx) |= id << 24 | cores << 16;
                if more_than_one {
                    *leaf.get_mut(Register::Edx) |= HT;
                }
            }
            0x8000_0001 if vendor == Vendor::Amd && more_than_one => {
                *leaf.get_mut(Register::Ecx) |= CMP_LEGACY;
            }
            // Cores minus one, and the number of APIC id bits for them. Reserved on Intel.
            0x8000_0008 if vendor == Vendor::Amd => {
                *leaf.get_mut(Register::Ecx) = (cores - 1) | core_bits(vcpus) << 12;
            }
            _ => {}
        }
    }
    all.extend(extended_topology(id, vcpus));
    match vendor {
        Vendor::Intel => {
            all.push(Leaf::new(2, 0, SEE_LEAF_4));
            all.extend(caches(4, cores));
            all.push(Leaf::new(0x8000_0006, 0, [0, 0, L2, 0]));
        }
        Vendor::Amd => {
            all.push(Leaf::new(0x8000_0005, 0, AMD_L1));
            all.push(Leaf::new(0x8000_0006, 0, AMD_L2));
            if topoext {
                all.extend(caches(0x8000_001d, cores));
                // APIC id, core id with one thread each, node 0.
                all.push(Leaf::new(0x8000_001e, 0, [id, id, 0, 0]));
            }
        }
    }
    all
}

/// One subleaf per cache, and an empty one at the end. All cores share L3 and no other cache.
fn caches(function: u32, cores: u32) -> impl Iterator<Item = Leaf> {
    let caches = CACHES.iter().zip(0..).map(move |(cache, index)| {
        let shared = if cache.level >= 3 { cores - 1 } else { 0 };
        // Bit 8: self-initializing. The cores from bit 26 are reserved on AMD.
        let cores = if function == 4 { cores - 1 } else { 0 };
        let eax = cache.kind | cache.level << 5 | 1 << 8 | shared << 14 | cores << 26;
        let ebx = (cache.ways - 1) << 22 | 63;
        Leaf::new(function, index, [eax, ebx, cache.sets - 1, 0])
    });
    caches.chain([Leaf::new(function, CACHES.len() as u32, [0; 4])])
}

/// Leaf 0xB: ECX is the level's type (1 SMT, 2 core, 0 invalid) and number, EDX the x2APIC id.
fn extended_topology(id: u32, vcpus: u8) -> [Leaf; 3] {
    let level = |index: u32, kind: u32, shift: u32, count: u32| {
        Leaf::new(0xb, index, [shift, count, kind << 8 | index, id])
    };
    [
        level(0, 1, 0, 1),
        level(1, 2, core_bits(vcpus), vcpus.into()),
        level(2, 0, 0, 0),
    ]
}

/// The number of APIC id bits for the cores.
fn core_bits(vcpus: u8) -> u32 {
    u32::from(vcpus).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> Vec<Leaf> {
        vec![
            Leaf::new(1, 0, [0; 4]),
            Leaf::new(0x8000_0001, 0, [0, 0, TOPOEXT, 0]),
            Leaf::new(0x8000_0008, 0, [0; 4]),
        ]
    }

    #[test]
    fn a_vcpu_has_its_id_and_the_number_of_vcpus() {
        let list = complete(&leaves(), Vendor::Intel, 2, 3);
        let ebx = leaf::register(&list, 1, 0, Register::Ebx);
        assert_eq!((ebx >> 24, ebx >> 16 & 0xff), (2, 3));
        let cores = leaf::find(&list, 0xb, 1).unwrap();
        assert_eq!(cores.registers, [2, 3, 0x201, 2]);
    }

    #[test]
    fn htt_is_set_only_with_several_vcpus() {
        let ht = |vcpus| {
            let list = complete(&leaves(), Vendor::Intel, 0, vcpus);
            leaf::register(&list, 1, 0, Register::Edx) & HT != 0
        };
        assert_eq!((ht(1), ht(2)), (false, true));
    }

    #[test]
    fn only_amd_has_core_counts_in_leaf_80000008() {
        let ecx = |vendor| {
            let list = complete(&leaves(), vendor, 0, 3);
            leaf::register(&list, 0x8000_0008, 0, Register::Ecx)
        };
        assert_eq!((ecx(Vendor::Intel), ecx(Vendor::Amd)), (0, 0x2002));
    }

    #[test]
    fn only_the_l3_cache_is_shared() {
        for (vendor, function) in [(Vendor::Intel, 4), (Vendor::Amd, 0x8000_001d)] {
            let list = complete(&leaves(), vendor, 0, 4);
            let sharing =
                |index| leaf::register(&list, function, index, Register::Eax) >> 14 & 0xfff;
            assert_eq!([0, 1, 2, 3].map(sharing), [0, 0, 0, 3]);
            let end = leaf::find(&list, function, 4).unwrap();
            assert_eq!(end.registers, [0; 4]);
        }
    }

    #[test]
    fn intel_and_amd_leaves_describe_equal_caches() {
        let bytes = |cache: &Cache| cache.ways * cache.sets * 64;
        assert_eq!(
            CACHES.each_ref().map(bytes),
            [32 << 10, 32 << 10, 1 << 20, 16 << 20]
        );
        assert_eq!(AMD_L1[2] >> 24, 32);
        assert_eq!(L2 >> 16, 1024);
        assert_eq!(AMD_L2[3] >> 18, 32);
    }
}
