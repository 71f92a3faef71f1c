//! CPUID tables as text, one leaf a line: function, index, EAX, EBX, ECX and EDX in hexadecimal. Lines that begin
//! with `#` are comments; the first names the processor, up to its first colon.

use super::leaf::{self, BRAND, Leaf, Register};

/// A table that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The processor's name.
    pub name: String,
    /// Its leaves.
    pub leaves: Vec<Leaf>,
}

/// Reads a table. The error names the line.
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

/// The table of `leaves`, as [`parse`] reads it.
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

/// The brand string, without the spaces and zeros around it.
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

/// KVM's features on Linux 5.10 and later.
const KVM_FEATURES: u32 = 0x0100_7efb;

/// A processor's own leaves with what KVM adds to them: the features that it emulates on every processor, and its
/// own leaves. A table that KVM gave is not changed.
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
            // Intel's processors report SYSCALL only to 64-bit code, and some recorders are 32-bit.
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
    fn a_written_table_is_read_again() {
        let leaves = vec![
            Leaf::new(0, 0, [0xd, 1, 2, 3]),
            Leaf::new(0xd, 2, [0x100, 0x240, 0, 0]),
        ];
        let read = parse(&write("A processor", &leaves)).unwrap();
        assert_eq!(read.name, "A processor");
        assert_eq!(read.leaves, leaves);
    }

    #[test]
    fn a_line_that_is_no_leaf_is_named() {
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
