//! Checks of the guest kernel and of the host's network: /dev/net/tun, nft, IP forwarding.

use std::fs::OpenOptions;

use cloude_protocol::api::InstalledKernel;

use super::check::Check;
use crate::paths;

/// Checks that a guest kernel is installed.
pub fn kernel(kernel: &InstalledKernel) -> Check {
    let (name, path) = ("kernel", &kernel.path);
    if !kernel.present {
        return Check::broken(
            name,
            format!("no guest kernel at {path}"),
            "run kernel/fetch, or set VM_KERNEL_PATH to a kernel",
        );
    }
    match &kernel.release {
        _ if !kernel.modules => Check::ok(name, format!("{path} (no modules)")),
        Some(release) => Check::ok(name, format!("{path} {release}")),
        None => Check::ok(name, path.as_str()),
    }
}

/// Checks that TAP devices can be made; each VM with a network has one.
pub fn tun() -> Check {
    let name = "network: tun";
    match OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Ok(_) => Check::ok(name, "/dev/net/tun"),
        Err(error) => Check::warning(
            name,
            format!("cannot open /dev/net/tun: {error}; --network does not work"),
            "load the module (sudo modprobe tun) and run clouded as root",
        ),
    }
}

/// Checks for nft(8), which installs the rules that isolate VMs from each other.
pub fn nft() -> Check {
    let name = "network: nft";
    match paths::find_in_path("nft") {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => Check::warning(
            name,
            "nft is not in PATH; --network does not work",
            "install nftables: sudo apt-get install nftables",
        ),
    }
}

/// Checks that the host's kernel forwards packets of VMs.
pub fn ip_forward() -> Check {
    let name = "network: forwarding";
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        Ok(text) if text.trim() == "1" => Check::ok(name, "net.ipv4.ip_forward = 1"),
        Ok(text) => Check::warning(
            name,
            format!(
                "net.ipv4.ip_forward = {}; VMs reach the host and nothing behind it",
                text.trim()
            ),
            "run clouded as root (it sets the sysctl), or: sudo sysctl -w net.ipv4.ip_forward=1",
        ),
        Err(error) => Check::warning(
            name,
            format!("cannot read net.ipv4.ip_forward: {error}"),
            "use a kernel with IPv4",
        ),
    }
}
