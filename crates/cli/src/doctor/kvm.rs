//! The check of KVM.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::check::Check;
use crate::paths;

const NAME: &str = "kvm";
const WITH_KVM: &str = "start clouded with `tools/with-kvm`, on an emulated host (slow)";

/// Opens /dev/kvm and runs `cloude-vmm probe`, which boots a tiny guest: some hosts have a /dev/kvm under
/// which no ordinary kernel boots.
pub fn kvm() -> Check {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        let found = format!("cannot open /dev/kvm: {error}");
        return match error.kind() {
            ErrorKind::NotFound => Check::broken(
                NAME,
                found,
                format!(
                    "enable virtualization in the firmware and load kvm_intel or kvm_amd; or {WITH_KVM}"
                ),
            ),
            ErrorKind::PermissionDenied => Check::broken(
                NAME,
                found,
                "join its group: sudo usermod -aG kvm $USER, then log in again",
            ),
            _ => Check::broken(NAME, found, WITH_KVM),
        };
    }
    let Some(probe) = probe() else {
        return Check::warning(
            NAME,
            "/dev/kvm opens; unknown if kernels boot: cloude-vmm was not found or its probe failed",
            "build it into the folder of cloude: cargo build --release -p cloude-vmm",
        );
    };
    match probe.kind.as_str() {
        "hardware" => Check::ok(NAME, hardware(&probe.capabilities)),
        "pvm" => Check::broken(
            NAME,
            "pvm: the KVM API works, but ordinary kernels do not boot",
            WITH_KVM,
        ),
        // The reason names a missing capability and the kernel version that has it.
        _ => Check::broken(NAME, probe.reason.unwrap_or_default(), WITH_KVM),
    }
}

/// The output of `cloude-vmm probe --json`.
#[derive(Deserialize)]
struct Probe {
    /// `hardware`, `pvm` or `none`.
    kind: String,
    /// Present if `kind` is not `hardware`.
    reason: Option<String>,
    #[serde(default)]
    capabilities: Vec<Capability>,
}

#[derive(Deserialize)]
struct Capability {
    name: String,
    purpose: String,
    since: String,
    present: bool,
}

/// The text for a usable KVM, with the optional capabilities that it lacks.
fn hardware(capabilities: &[Capability]) -> String {
    let mut text = "hardware: ordinary kernels boot".to_owned();
    for missing in capabilities.iter().filter(|capability| !capability.present) {
        let Capability {
            name,
            purpose,
            since,
            ..
        } = missing;
        text += &format!("; without {name} ({purpose}; Linux {since})");
    }
    text
}

fn probe() -> Option<Probe> {
    let program = paths::find_program("cloude-vmm")?;
    let output = Command::new(program)
        .args(["probe", "--json"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_is_missing_is_named_with_its_kernel() {
        let json = r#"{"kind":"hardware","capabilities":[
            {"name":"KVM_CAP_IRQFD","purpose":"interrupts","since":"2.6.32","required":true,"present":true},
            {"name":"KVM_CAP_PMU_CAPABILITY","purpose":"counters off","since":"5.18","required":false,"present":false}]}"#;
        let probe: Probe = serde_json::from_str(json).unwrap();
        assert_eq!(
            hardware(&probe.capabilities),
            "hardware: ordinary kernels boot; without KVM_CAP_PMU_CAPABILITY (counters off; Linux 5.18)"
        );
    }
}
