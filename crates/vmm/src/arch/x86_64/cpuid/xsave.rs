//! Leaf 0xD: the XSAVE components of the visible features.

use super::leaf::{self, Leaf, Register};

const XSAVE_LEAF: u32 = 0xd;
/// x87 and SSE, which every XSAVE area has.
const LEGACY: u32 = 0b11;
/// Bytes of the legacy region and the header: the area for x87 and SSE.
const LEGACY_SIZE: u32 = 576;

/// The components that a guest may have, each with its feature: leaf 1 or 7, register, bit.
const COMPONENTS: [(u8, u32, Register, u8); 5] = [
    // AVX.
    (2, 1, Register::Ecx, 28),
    // AVX-512: opmask, upper halves of ZMM0 to 15, ZMM16 to 31.
    (5, 7, Register::Ebx, 16),
    (6, 7, Register::Ebx, 16),
    (7, 7, Register::Ebx, 16),
    // PKRU.
    (9, 7, Register::Ecx, 3),
];

/// Rebuilds leaf 0xD for the features in `leaves`, with the sizes and offsets in `supported`.
///
/// Without XSAVE the leaf is removed. Subleaf 1 keeps its features.
pub fn fit(leaves: &mut Vec<Leaf>, supported: &[Leaf]) {
    let has = |leaves: &[Leaf], function, register, bit: u8| {
        leaf::register(leaves, function, 0, register) & 1 << bit != 0
    };
    if !has(leaves, 1, Register::Ecx, 26) {
        leaves.retain(|leaf| leaf.function != XSAVE_LEAF);
        return;
    }
    let reported = leaf::register(supported, XSAVE_LEAF, 0, Register::Eax);
    let components: Vec<Leaf> = COMPONENTS
        .into_iter()
        .filter(|(component, function, register, bit)| {
            reported & 1 << component != 0 && has(leaves, *function, *register, *bit)
        })
        .filter_map(|(component, ..)| leaf::find(supported, XSAVE_LEAF, component.into()))
        .copied()
        .collect();
    let end = |leaf: &Leaf| leaf.get(Register::Eax) + leaf.get(Register::Ebx);
    let size = components.iter().map(end).max().unwrap_or(LEGACY_SIZE);
    let mask: u32 = components.iter().map(|leaf| 1 << leaf.index).sum();
    // Supported XCR0 bits; area size for the current XCR0 (KVM updates it while the guest runs); size for all
    // components.
    leaves.push(Leaf::new(
        XSAVE_LEAF,
        0,
        [LEGACY | mask, LEGACY_SIZE, size, 0],
    ));
    // A component's subleaf: size, offset, and in ECX bit 1 its 64-byte alignment.
    leaves.extend(components.into_iter().map(|leaf| {
        let [size, offset, flags, _] = leaf.registers;
        Leaf::new(XSAVE_LEAF, leaf.index, [size, offset, flags & 0b10, 0])
    }));
}

/// The components that a guest with these leaves can enable in XCR0.
pub fn components(leaves: &[Leaf]) -> u64 {
    let low = leaf::register(leaves, XSAVE_LEAF, 0, Register::Eax);
    u64::from(low | LEGACY)
}
