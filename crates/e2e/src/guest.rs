//! Guests booted with `cloude-vmm run`, without `clouded`.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cloude_initramfs_builder::boot_segment::BootSegment;
use cloude_protocol::boot::{self, BootConfig, NetworkConfig};

use crate::{binaries, host};

/// The work of the agent in such a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Run the image's `/bin/sh` on the console and power off when it ends.
    Shell,
    /// Serve HTTP on [`ADDRESS`].
    Serve,
}

/// The IPv4 address of a guest with [`Role::Serve`].
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 8, 2);

/// Writes the initramfs segment with the agent, the kernel's modules and the boot configuration to `folder`.
pub fn boot_segment(folder: &Path, kernel: &Path, role: Role) -> PathBuf {
    let network = NetworkConfig {
        address: ADDRESS,
        prefix_len: 24,
        gateway: None,
        dns: Vec::new(),
        mtu: None,
    };
    let config = BootConfig {
        token: "0".repeat(64),
        hostname: "cloude".to_owned(),
        network: (role == Role::Serve).then_some(network),
        copy_output_to_console: false,
        shell: role == Role::Shell,
        template: false,
    };
    let segment = BootSegment::new()
        .agent_file(&binaries::agent())
        .unwrap()
        .kernel(kernel)
        .unwrap()
        .boot_config(&config)
        .unwrap();
    let name = kernel
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("kernel");
    let path = folder.join(format!("boot-{name}.cpio"));
    std::fs::write(&path, segment.to_bytes()).unwrap();
    path
}

/// Boots a language's image with [`Role::Shell`], types `input` at the prompt and waits for the VM's end.
/// [`vmm`] ends a guest that runs longer than [`host::patience`]; the exit status is then timeout(1)'s.
pub fn type_at_shell(kernel: &Path, language: &str, options: &[&str], input: &str) -> Output {
    binaries::require_kvm();
    let folder = tempfile::tempdir().unwrap();
    let segment = boot_segment(folder.path(), kernel, Role::Shell);
    let image = binaries::image(language);
    let mut command = vmm(kernel, &[&image, &segment]);
    command
        .args(["--memory", "256", "--console", "--init", boot::AGENT])
        .args(options);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Stays open until the VM ends: these tests are not about end of file on standard input.
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut console = Vec::new();
    let mut buffer = [0; 4096];
    let mut typed = false;
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        console.extend_from_slice(&buffer[..count]);
        // Input before the prompt is lost: the guest has not opened its terminal yet.
        if !typed && console.windows(2).any(|two| two == b"# " || two == b"$ ") {
            stdin.write_all(input.as_bytes()).unwrap();
            typed = true;
        }
    }
    let mut output = child.wait_with_output().unwrap();
    output.stdout = console;
    output
}

/// A `cloude-vmm run` command under timeout(1), which ends it after [`host::patience`].
pub fn vmm(kernel: &Path, segments: &[&Path]) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(host::patience().as_secs().to_string())
        .arg(binaries::binary("cloude-vmm"))
        .args(["run", "--kernel"])
        .arg(kernel);
    for segment in segments {
        command.arg("--initramfs").arg(segment);
    }
    command.stdin(Stdio::null());
    command
}
