//! The CPU model of a guest: the leaves that are equal on every vCPU.

use kvm_bindings::CpuId;
use sha2::{Digest, Sha256};

use super::baseline::{CpuBaseline, Vendor};
use super::features::{Policy, WORDS, Word};
use super::leaf::{self, BRAND, Leaf, Register};
use super::{topology, xsave};

const KVM_SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;
const EXTENDED: u32 = 0x8000_0000;
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// The highest leaf of a guest: extended state enumeration.
const XSAVE: u32 = 0xd;
/// The highest leaf of a guest without XSAVE: extended topology.
const TOPOLOGY: u32 = 0xb;
/// The highest extended leaf of the baseline `host`.
const LAST_EXTENDED: u32 = 0x8000_0021;
/// Physical address bits of a named baseline: the fewest of any processor with x86-64-v3 (512 GiB).
const PHYSICAL_BITS: u32 = 39;
/// Virtual address bits, with four levels of page tables.
const VIRTUAL_BITS: u32 = 48;
/// CLFLUSH line size, in units of 8 bytes.
const CLFLUSH: u32 = 8;

/// A CPU model that this host cannot provide.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuModelError {
    /// Choose another baseline for VMs on this host.
    #[error(
        "this host's processor or KVM lacks {missing} of the CPU baseline {baseline}; use the baseline `host`, or a lower one"
    )]
    Missing {
        /// The configured baseline.
        baseline: CpuBaseline,
        /// The features that the host lacks.
        missing: String,
    },
    /// The model has more leaves than KVM_MAX_CPUID_ENTRIES.
    #[error("the CPU model has {0} CPUID leaves, more than KVM_MAX_CPUID_ENTRIES")]
    TooManyLeaves(usize),
}

/// The CPU that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    baseline: CpuBaseline,
    vendor: Vendor,
    /// The leaves that depend neither on the vCPU nor on the number of vCPUs.
    leaves: Vec<Leaf>,
}

impl CpuModel {
    /// The model of `baseline` on a host whose KVM supports these leaves (KVM_GET_SUPPORTED_CPUID).
    pub fn new(supported: &[Leaf], baseline: CpuBaseline) -> Result<Self, CpuModelError> {
        let vendor = Vendor::of(&vendor_name(supported));
        let missing = missing(supported, baseline, vendor);
        if !missing.is_empty() {
            return Err(CpuModelError::Missing {
                baseline,
                missing: missing.join(", "),
            });
        }
        let mut leaves = Vec::new();
        for word in WORDS {
            let bits = visible_bits(word, supported, baseline, vendor);
            if bits != 0 {
                *entry(&mut leaves, word.function, word.index).get_mut(word.register) = bits;
            }
        }
        xsave::fit(&mut leaves, supported);
        let mut model = Self {
            baseline,
            vendor,
            leaves,
        };
        model.identify(supported);
        model.set_limits(supported);
        model.leaves.sort_by_key(|leaf| (leaf.function, leaf.index));
        Ok(model)
    }

    /// The baseline of the model.
    pub fn baseline(&self) -> CpuBaseline {
        self.baseline
    }

    /// The processor's vendor.
    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The leaves that are the same on every vCPU.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The leaves that must be equal for a restore: all except the brand string.
    pub fn key_leaves(&self) -> Vec<Leaf> {
        let kept = |leaf: &&Leaf| !BRAND.contains(&leaf.function);
        self.leaves.iter().filter(kept).copied().collect()
    }

    /// A digest of the key leaves, 12 hexadecimal digits, to compare hosts by eye.
    pub fn key_digest(&self) -> String {
        let mut digest = Sha256::new();
        for leaf in self.key_leaves() {
            for word in [leaf.function, leaf.index].iter().chain(&leaf.registers) {
                digest.update(word.to_le_bytes());
            }
        }
        let digest = digest.finalize();
        digest[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The complete list for the vCPU `apic_id` of `vcpus`, with ids, topology and caches.
    pub fn for_vcpu(&self, apic_id: u8, vcpus: u8) -> Result<CpuId, CpuModelError> {
        let leaves = topology::complete(&self.leaves, self.vendor, apic_id, vcpus);
        leaf::to_kvm(&leaves).ok_or(CpuModelError::TooManyLeaves(leaves.len()))
    }

    /// True if the guest sees an invariant TSC.
    pub fn has_invariant_tsc(&self) -> bool {
        leaf::register(&self.leaves, 0x8000_0007, 0, Register::Edx) & 1 << 8 != 0
    }

    /// True if the guest can read IA32_ARCH_CAPABILITIES.
    pub fn has_arch_capabilities(&self) -> bool {
        leaf::register(&self.leaves, 7, 0, Register::Edx) & 1 << 29 != 0
    }

    /// Vendor, signature, brand string and address sizes.
    fn identify(&mut self, supported: &[Leaf]) {
        let host = self.baseline == CpuBaseline::Host;
        let of_host = |function, register| leaf::register(supported, function, 0, register);
        let signature = match host {
            true => of_host(1, Register::Eax),
            false => self.vendor.signature(),
        };
        let features = entry(&mut self.leaves, 1, 0);
        *features.get_mut(Register::Eax) = signature;
        *features.get_mut(Register::Ebx) = CLFLUSH << 8;
        if self.vendor == Vendor::Amd {
            *entry(&mut self.leaves, 0x8000_0001, 0).get_mut(Register::Eax) = signature;
        }
        let brand = BRAND.map(|function| Leaf {
            registers: match leaf::find(supported, function, 0) {
                Some(leaf) if host => leaf.registers,
                _ => brand_part(self.baseline.name(), function),
            },
            function,
            index: 0,
        });
        self.leaves.extend(brand);
        // Physical and virtual address bits. KVM may set bits 16 to 23 (guest physical address bits), which guests
        // ignore.
        let physical = match of_host(ADDRESS_SIZES, Register::Eax) & 0xff {
            bits if host && bits != 0 => bits,
            _ => PHYSICAL_BITS,
        };
        *entry(&mut self.leaves, ADDRESS_SIZES, 0).get_mut(Register::Eax) =
            physical | VIRTUAL_BITS << 8;
    }

    /// The leaves with the highest leaf of each range.
    fn set_limits(&mut self, supported: &[Leaf]) {
        let host = self.baseline == CpuBaseline::Host;
        let of_host = |function| leaf::register(supported, function, 0, Register::Eax);
        let has_xsave = leaf::find(&self.leaves, XSAVE, 0).is_some();
        let last = if has_xsave { XSAVE } else { TOPOLOGY };
        let mut basic = leaf::find(supported, 0, 0).copied().unwrap_or_default();
        let name = [1, 2, 3].map(|at| basic.registers[at]);
        basic.registers[0] = if host {
            basic.registers[0].min(last)
        } else {
            last
        };
        let extended = match host {
            true => of_host(EXTENDED).min(LAST_EXTENDED),
            false => ADDRESS_SIZES,
        };
        // AMD repeats the vendor's name here.
        let name = match self.vendor {
            Vendor::Intel => [0; 3],
            Vendor::Amd => name,
        };
        self.leaves.retain(|leaf| {
            leaf.function < EXTENDED || leaf.function <= extended.max(ADDRESS_SIZES)
        });
        self.leaves.push(basic);
        self.leaves.push(Leaf::new(
            EXTENDED,
            0,
            [extended.max(ADDRESS_SIZES), name[0], name[1], name[2]],
        ));
        if let Some(signature) = leaf::find(supported, KVM_SIGNATURE, 0) {
            let mut signature = *signature;
            signature.registers[0] = KVM_FEATURES;
            self.leaves.push(signature);
        }
        // EAX: the highest subleaf.
        let subleaf = self.leaves.iter().filter(|leaf| leaf.function == 7);
        if let Some(last) = subleaf.map(|leaf| leaf.index).max() {
            *entry(&mut self.leaves, 7, 0).get_mut(Register::Eax) = last;
        }
    }
}

/// The 12 letters of leaf 0: EBX, EDX and ECX.
pub fn vendor_name(leaves: &[Leaf]) -> String {
    let words = [Register::Ebx, Register::Edx, Register::Ecx];
    let words = words.map(|register| leaf::register(leaves, 0, 0, register));
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    String::from_utf8_lossy(&bytes)
        .trim_matches('\0')
        .to_owned()
}

/// The names of the features that a named baseline needs and the host lacks.
fn missing(supported: &[Leaf], baseline: CpuBaseline, vendor: Vendor) -> Vec<&'static str> {
    if baseline == CpuBaseline::Host {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for word in WORDS {
        let have = leaf::register(supported, word.function, word.index, word.register);
        let lacks = |(bit, _, policy): &&(u8, &str, Policy)| {
            *policy != Policy::Always && baseline.allows(*policy, vendor) && have & 1 << bit == 0
        };
        missing.extend(word.features.iter().filter(lacks).map(|(_, name, _)| *name));
    }
    missing
}

fn visible_bits(word: &Word, supported: &[Leaf], baseline: CpuBaseline, vendor: Vendor) -> u32 {
    let have = leaf::register(supported, word.function, word.index, word.register);
    let visible = |(bit, _, policy): &(u8, &str, Policy)| match baseline.allows(*policy, vendor) {
        true if *policy == Policy::Always => 1 << bit,
        true => have & 1 << bit,
        false => 0,
    };
    word.features.iter().map(visible).sum()
}

/// Finds a leaf by its inputs, or adds it.
fn entry(leaves: &mut Vec<Leaf>, function: u32, index: u32) -> &mut Leaf {
    let is = |leaf: &Leaf| leaf.function == function && leaf.index == index;
    let at = leaves.iter().position(is).unwrap_or_else(|| {
        leaves.push(Leaf::new(function, index, [0; 4]));
        leaves.len() - 1
    });
    &mut leaves[at]
}

/// 16 of the 48 bytes of a brand string.
fn brand_part(baseline: &str, function: u32) -> [u32; 4] {
    let mut text = format!("Cloude {baseline} processor").into_bytes();
    text.resize(48, 0);
    let at = 16 * (function - BRAND[0]) as usize;
    let word = |n: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&text[at + 4 * n..at + 4 * n + 4]);
        u32::from_le_bytes(bytes)
    };
    [word(0), word(1), word(2), word(3)]
}
