//! Whether virtual machines run here.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use super::Check;
use crate::paths;

const NAME: &str = "kvm";
const WITH_KVM: &str =
    "start clouded with tools/with-kvm, which boots an emulated host with KVM; it is slower";

/// /dev/kvm, and what `cloude-vmm probe` says that it can do: its presence alone says little.
pub fn kvm() -> Check {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        let found = format!("/dev/kvm: {error}");
        return match error.kind() {
            ErrorKind::NotFound => Check::broken(
                NAME,
                found,
                format!(
                    "turn virtualization on in the firmware and load kvm-intel or kvm-amd; or {WITH_KVM}"
                ),
            ),
            ErrorKind::PermissionDenied => Check::broken(
                NAME,
                found,
                "join the group that may use it: sudo usermod -aG kvm $USER, then log in again",
            ),
            _ => Check::broken(NAME, found, WITH_KVM),
        };
    }
    match probe() {
        Some(kind) if kind == "hardware" => Check::ok(NAME, "hardware: ordinary kernels boot"),
        Some(kind) if kind == "pvm" => Check::broken(
            NAME,
            "pvm: the interface is there, ordinary kernels do not boot",
            WITH_KVM,
        ),
        Some(_) => Check::broken(
            NAME,
            "/dev/kvm is there and runs no virtual machine",
            WITH_KVM,
        ),
        None => Check::warning(
            NAME,
            "/dev/kvm can be opened; whether kernels boot is unknown",
            "build cloude-vmm beside cloude, so that its probe can run: cargo build -p cloude-vmm",
        ),
    }
}

/// What `cloude-vmm probe` prints first: `hardware`, `pvm` or `none`.
fn probe() -> Option<String> {
    let program = paths::find_program("cloude-vmm")?;
    let output = Command::new(program)
        .arg("probe")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
    text.split(|c: char| !c.is_ascii_alphabetic())
        .find(|word| matches!(*word, "hardware" | "pvm" | "none"))
        .map(str::to_owned)
}
