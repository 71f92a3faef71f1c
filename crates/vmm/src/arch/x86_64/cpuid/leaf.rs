//! A CPUID leaf, and lists of leaves.

use std::arch::x86_64::__cpuid;

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};

/// The leaves of the brand string, 16 bytes each.
pub const BRAND: [u32; 3] = [0x8000_0002, 0x8000_0003, 0x8000_0004];

/// An output register of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    /// All four, in the order of [`Leaf::registers`].
    pub const ALL: [Self; 4] = [Self::Eax, Self::Ebx, Self::Ecx, Self::Edx];

    /// The register's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }
}

/// The output of CPUID for one leaf and subleaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The leaf: input EAX.
    pub function: u32,
    /// The subleaf: input ECX; 0 if the leaf has no subleaves.
    pub index: u32,
    /// Output EAX, EBX, ECX and EDX.
    pub registers: [u32; 4],
}

impl Leaf {
    /// A leaf with these inputs and outputs.
    pub const fn new(function: u32, index: u32, registers: [u32; 4]) -> Self {
        Self {
            function,
            index,
            registers,
        }
    }

    /// The value of one register.
    pub fn get(&self, register: Register) -> u32 {
        self.registers[register as usize]
    }

    /// One register, mutable.
    pub fn get_mut(&mut self, register: Register) -> &mut u32 {
        &mut self.registers[register as usize]
    }
}

/// One register of a leaf; 0 if the list does not have the leaf.
pub fn register(leaves: &[Leaf], function: u32, index: u32, register: Register) -> u32 {
    find(leaves, function, index).map_or(0, |leaf| leaf.get(register))
}

/// Finds a leaf by its inputs.
pub fn find(leaves: &[Leaf], function: u32, index: u32) -> Option<&Leaf> {
    leaves
        .iter()
        .find(|leaf| leaf.function == function && leaf.index == index)
}

/// The leaves that KVM supports on this host (KVM_GET_SUPPORTED_CPUID), and the brand string, which KVM leaves out.
pub fn supported(kvm: &Kvm) -> Result<Vec<Leaf>, kvm_ioctls::Error> {
    let mut leaves = from_kvm(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?);
    leaves.retain(|leaf| !BRAND.contains(&leaf.function));
    leaves.extend(BRAND.map(|function| {
        let answer = __cpuid(function);
        let registers = [answer.eax, answer.ebx, answer.ecx, answer.edx];
        Leaf::new(function, 0, registers)
    }));
    Ok(leaves)
}

/// Converts KVM's list.
pub fn from_kvm(cpuid: &CpuId) -> Vec<Leaf> {
    let leaf = |entry: &kvm_cpuid_entry2| Leaf {
        function: entry.function,
        index: entry.index,
        registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
    };
    cpuid.as_slice().iter().map(leaf).collect()
}

/// A list for KVM_SET_CPUID2, sorted by inputs; `None` if it has more than KVM_MAX_CPUID_ENTRIES leaves.
pub fn to_kvm(leaves: &[Leaf]) -> Option<CpuId> {
    let entry = |leaf: &Leaf| {
        let [eax, ebx, ecx, edx] = leaf.registers;
        kvm_cpuid_entry2 {
            function: leaf.function,
            index: leaf.index,
            flags: match has_subleaves(leaf.function) {
                true => KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                false => 0,
            },
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    };
    let mut entries: Vec<_> = leaves.iter().map(entry).collect();
    entries.sort_by_key(|entry| (entry.function, entry.index));
    CpuId::from_entries(&entries).ok()
}

/// True if the leaf has subleaves (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
fn has_subleaves(function: u32) -> bool {
    matches!(function, 4 | 7 | 0xb | 0xd | 0x8000_001d)
}
