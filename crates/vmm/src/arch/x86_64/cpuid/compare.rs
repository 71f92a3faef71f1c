//! The differences between two lists of leaves, as feature names.

use super::features::{Policy, WORDS};
use super::leaf::{self, Leaf, Register};

/// The most registers in a message, and the most features per side.
const MOST: usize = 4;
const MOST_FEATURES: usize = 12;

/// The differences as one text per side, or `None` if both are equal.
pub fn differences(saved: &[Leaf], here: &[Leaf]) -> Option<(String, String)> {
    let mut only_saved = Vec::new();
    let mut only_here = Vec::new();
    for word in WORDS {
        let [saved, here] = [saved, here]
            .map(|leaves| leaf::register(leaves, word.function, word.index, word.register));
        for (bit, name, _) in word.features {
            match (saved & 1 << bit != 0, here & 1 << bit != 0) {
                (true, false) => only_saved.push(*name),
                (false, true) => only_here.push(*name),
                _ => {}
            }
        }
    }
    let registers = differing_registers(saved, here);
    if only_saved.is_empty() && only_here.is_empty() && registers.is_empty() {
        return None;
    }
    let side = |with: &[&str], without: &[&str], value: usize| {
        let mut parts = Vec::new();
        if !with.is_empty() {
            parts.push(format!("with {}", some_of(with, " ", MOST_FEATURES)));
        }
        if !without.is_empty() {
            parts.push(format!("without {}", some_of(without, " ", MOST_FEATURES)));
        }
        let registers: Vec<String> = registers
            .iter()
            .map(|(name, values)| format!("{name} {:#x}", values[value]))
            .collect();
        if !registers.is_empty() {
            parts.push(some_of(&registers, ", ", MOST));
        }
        parts.join(", ")
    };
    Some((
        side(&only_saved, &only_here, 0),
        side(&only_here, &only_saved, 1),
    ))
}

/// The registers without feature bits that differ: name and both values.
fn differing_registers(saved: &[Leaf], here: &[Leaf]) -> Vec<(String, [u32; 2])> {
    let mut inputs: Vec<(u32, u32)> = saved
        .iter()
        .chain(here)
        .map(|leaf| (leaf.function, leaf.index))
        .collect();
    inputs.sort_unstable();
    inputs.dedup();
    let mut differing = Vec::new();
    for (function, index) in inputs {
        for register in Register::ALL {
            let values =
                [saved, here].map(|leaves| leaf::register(leaves, function, index, register));
            let holds_features = WORDS.iter().any(|word| {
                (word.function, word.index, word.register) == (function, index, register)
            });
            if values[0] != values[1] && !holds_features {
                let name = match index {
                    0 => format!("leaf {function:#x} {}", register.name()),
                    _ => format!("leaf {function:#x}.{index} {}", register.name()),
                };
                differing.push((name, values));
            }
        }
    }
    differing
}

/// The names of the features in `supported` that `model` lacks. A bit without a name is `LEAF.REGISTER[BIT]`.
pub fn hidden(supported: &[Leaf], model: &[Leaf]) -> Vec<String> {
    let mut hidden = Vec::new();
    for word in WORDS {
        let [have, visible] = [supported, model]
            .map(|leaves| leaf::register(leaves, word.function, word.index, word.register));
        for bit in (0..32u8).filter(|bit| have & !visible & 1 << bit != 0) {
            match word.features.iter().find(|feature| feature.0 == bit) {
                Some((_, _, Policy::Dynamic)) => {}
                Some((_, name, _)) => hidden.push((*name).to_owned()),
                None => hidden.push(format!(
                    "{:#x}.{}.{}[{bit}]",
                    word.function,
                    word.index,
                    word.register.name()
                )),
            }
        }
    }
    hidden
}

/// The leaves in `supported` that `visible` lacks.
pub fn hidden_leaves(supported: &[Leaf], visible: &[Leaf]) -> Vec<String> {
    let mut functions: Vec<u32> = supported
        .iter()
        .filter(|leaf| leaf.registers != [0; 4])
        .map(|leaf| leaf.function)
        .filter(|function| visible.iter().all(|leaf| leaf.function != *function))
        .collect();
    functions.dedup();
    functions
        .iter()
        .map(|function| format!("{function:#x}"))
        .collect()
}

/// The first few of `items`, and the number of the others.
fn some_of(items: &[impl AsRef<str>], separator: &str, most: usize) -> String {
    let first: Vec<&str> = items.iter().take(most).map(AsRef::as_ref).collect();
    let text = first.join(separator);
    match items.len().saturating_sub(most) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(signature: u32, extended: u32) -> Vec<Leaf> {
        vec![
            Leaf::new(1, 0, [signature, 0, 0, 0]),
            Leaf::new(7, 0, [0, extended, 0, 0]),
        ]
    }

    #[test]
    fn equal_leaves_have_no_differences() {
        assert_eq!(differences(&leaves(1, 2), &leaves(1, 2)), None);
    }

    #[test]
    fn a_differing_feature_is_named_on_both_sides() {
        const AVX512F: u32 = 1 << 16;
        const SMAP: u32 = 1 << 20;
        let (saved, here) = differences(&leaves(1, AVX512F), &leaves(1, SMAP)).unwrap();
        assert_eq!(saved, "with avx512f, without smap");
        assert_eq!(here, "with smap, without avx512f");
    }

    #[test]
    fn a_differing_register_is_named_with_its_values() {
        let (saved, here) = differences(&leaves(0x50654, 0), &leaves(0x806f8, 0)).unwrap();
        assert_eq!(saved, "leaf 0x1 EAX 0x50654");
        assert_eq!(here, "leaf 0x1 EAX 0x806f8");
    }

    #[test]
    fn a_hidden_bit_without_a_name_has_its_position() {
        let hidden = hidden(&leaves(0, 1 << 22 | 1 << 2), &leaves(0, 0));
        assert_eq!(hidden, ["sgx", "0x7.0.EBX[22]"]);
    }
}
