//! CPUID tables as text. A line has leaf, subleaf, EAX, EBX, ECX and EDX in hexadecimal. Lines that begin with `#` are
//! comments; the first comment up to its first colon is the processor's name.

use super::leaf::{self, BRAND, Leaf, Register};

/// A parsed table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The processor's name.
    pub name: String,
    /// The leaves of the processor.
    pub leaves: Vec<Leaf>,
}

/// Parses a table. The error text names the line.
pub fn parse(text: &str) -> Result<Recorded, String> {
    let mut recorded = Recorded {
        name: String::new(),
        leaves: Vec::new(),
    };
    for (line, number) in text.lines().zip(1..) {
        if let Some(comment) = line.strip_prefix('#') {
            if recorded.name.is_empty() {
                let name = comment.split(':').next().unwrap_or_default();
                recorded.name = name.trim().to_owned();
            }
            continue;
        }
        let words: Result<Vec<u32>, _> = line
            .split_whitespace()
            .map(|word| u32::from_str_radix(word, 16))
            .collect();
        match words.as_deref() {
            Ok([]) => {}
            Ok(&[function, index, eax, ebx, ecx, edx]) => {
                let leaf = Leaf::new(function, index, [eax, ebx, ecx, edx]);
                recorded.leaves.push(leaf);
            }
            _ => return Err(format!("line {number} is not six hexadecimal numbers")),
        }
    }
    match leaf::find(&recorded.leaves, 0, 0) {
        Some(_) => Ok(recorded),
        None => Err("leaf 0 is missing".to_owned()),
    }
}

/// Formats `leaves` as a table for [`parse`].
pub fn write(name: &str, leaves: &[Leaf]) -> String {
    let mut text = format!("# {name}: as reported by KVM_GET_SUPPORTED_CPUID.\n");
    for leaf in leaves.iter().filter(|leaf| leaf.registers != [0; 4]) {
        let [eax, ebx, ecx, edx] = leaf.registers;
        text += &format!(
            "{:08x} {:02x} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}\n",
            leaf.function, leaf.index
        );
    }
    text
}

/// The brand string without surrounding spaces and zeros.
pub fn brand(leaves: &[Leaf]) -> String {
    let parts = BRAND
        .iter()
        .filter_map(|function| leaf::find(leaves, *function, 0));
    let bytes: Vec<u8> = parts
        .flat_map(|leaf| leaf.registers)
        .flat_map(u32::to_le_bytes)
        .filter(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// KVM's feature leaf (0x4000_0001 EAX) on Linux 5.10.
const KVM_FEATURES: u32 = 0x0100_7efb;

/// Adds to a processor's leaves the features that KVM emulates on every processor, and KVM's leaves. A table that
/// already has KVM's leaves is not changed.
pub fn with_kvm_features(leaves: &[Leaf]) -> Vec<Leaf> {
    let mut all = leaves.to_vec();
    if leaf::find(leaves, 0x4000_0000, 0).is_some() {
        return all;
    }
    for leaf in &mut all {
        match (leaf.function, leaf.index) {
            // x2APIC.
            (1, 0) => *leaf.get_mut(Register::Ecx) |= 1 << 21,
            // IA32_TSC_ADJUST.
            (7, 0) => *leaf.get_mut(Register::Ebx) |= 1 << 1,
            // SYSCALL: Intel reports it only in 64-bit mode, and some tables were recorded in 32-bit mode.
            (0x8000_0001, 0) => *leaf.get_mut(Register::Edx) |= 1 << 11,
            _ => {}
        }
    }
    // "KVMKVMKVM\0\0\0".
    let signature = [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d];
    all.push(Leaf::new(0x4000_0000, 0, signature));
    all.push(Leaf::new(0x4000_0001, 0, [KVM_FEATURES, 0, 0, 0]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_formatting_and_parsing() {
        let leaves = vec![
            Leaf::new(0, 0, [0xd, 1, 2, 3]),
            Leaf::new(0xd, 2, [0x100, 0x240, 0, 0]),
        ];
        let read = parse(&write("A processor", &leaves)).unwrap();
        assert_eq!(read.name, "A processor");
        assert_eq!(read.leaves, leaves);
    }

    #[test]
    fn the_error_names_a_malformed_line() {
        let error = parse("# name\n0 0 1 2 3 4\n0 0 1 2 3\n").unwrap_err();
        assert_eq!(error, "line 3 is not six hexadecimal numbers");
        let error = parse("0 0 1 2 x 4\n").unwrap_err();
        assert_eq!(error, "line 1 is not six hexadecimal numbers");
    }

    #[test]
    fn a_table_without_leaf_0_is_refused() {
        assert_eq!(parse("# name\n").unwrap_err(), "leaf 0 is missing");
    }
}
