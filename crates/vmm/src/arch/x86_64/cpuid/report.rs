//! The output of `cloude-vmm cpuid`.

use super::baseline::CpuBaseline;
use super::compare::{hidden, hidden_leaves};
use super::leaf::{self, Leaf, Register};
use super::model::{CpuModel, CpuModelError};
use super::topology;

/// The line width for feature names.
const WIDTH: usize = 96;
const INDENT: &str = "             ";

/// For each baseline the key digest or the missing features; then the hidden features, hidden leaves and XSAVE
/// components of `host`. `supported` are the leaves that KVM supports on the processor `name`.
pub fn report(name: &str, supported: &[Leaf]) -> String {
    let mut text = format!("{name}\n");
    for baseline in CpuBaseline::ALL {
        let line = match CpuModel::new(supported, baseline) {
            Ok(model) => format!("key {}", model.key_digest()),
            Err(CpuModelError::Missing { missing, .. }) => format!("lacks {missing}"),
            Err(error) => error.to_string(),
        };
        text += &row(baseline.name(), &line);
    }
    if let Ok(model) = CpuModel::new(supported, CpuBaseline::Host) {
        text += &row("hidden", &hidden(supported, model.leaves()).join(" "));
        let visible = topology::complete(model.leaves(), model.vendor(), 0, 1);
        text += &row("no leaf", &hidden_leaves(supported, &visible).join(" "));
        let [own, all] =
            [model.leaves(), supported].map(|leaves| leaf::register(leaves, 0xd, 0, Register::Eax));
        let bytes = leaf::register(model.leaves(), 0xd, 0, Register::Ecx);
        text += &row(
            "XSAVE",
            &format!("components {own:#x} of {all:#x}, {bytes} bytes"),
        );
    }
    text
}

/// A label and words, wrapped at [`WIDTH`].
fn row(label: &str, words: &str) -> String {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let line = lines.len() - 1;
        if !lines[line].is_empty() && lines[line].len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
            continue;
        }
        if !lines[line].is_empty() {
            lines[line].push(' ');
        }
        lines[line].push_str(word);
    }
    let between = format!("\n{INDENT}");
    format!("  {label:<11}{}\n", lines.join(&between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_baseline_is_listed_with_missing_features() {
        let leaves = [Leaf::new(
            0,
            0,
            [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        )];
        let text = report("A processor", &leaves);
        assert!(text.starts_with("A processor\n  host       key "), "{text}");
        assert!(
            text.contains("\n  x86-64-v3  lacks sse3, pclmulqdq, "),
            "{text}"
        );
    }
}
