//! The guest kernel, and what a VM's network needs of the host.

use std::fs::OpenOptions;

use cloude_protocol::api::InstalledKernel;

use super::check::Check;
use crate::paths;

/// Whether there is a guest kernel.
pub fn kernel(kernel: &InstalledKernel) -> Check {
    let (name, path) = ("kernel", &kernel.path);
    if !kernel.present {
        return Check::broken(
            name,
            format!("none at {path}"),
            "run kernel/fetch, or name one with VM_KERNEL_PATH",
        );
    }
    match &kernel.release {
        _ if !kernel.modules => Check::ok(name, format!("{path} (no modules)")),
        Some(release) => Check::ok(name, format!("{path} {release}")),
        None => Check::ok(name, path.as_str()),
    }
}

/// TAP devices, one for each VM with a network.
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
            format!("/dev/net/tun: {error}; programs with --network do not run"),
            "load the module and run clouded as root: sudo modprobe tun",
        ),
    }
}

/// The packet filter that keeps VMs apart.
pub fn nft() -> Check {
    let name = "network: nft";
    match paths::find_in_path("nft") {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => Check::warning(
            name,
            "no nft; programs with --network do not run",
            "install nftables: sudo apt-get install nftables",
        ),
    }
}

/// Whether the kernel passes a VM's packets on.
pub fn ip_forward() -> Check {
    let name = "network: forwarding";
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        Ok(text) if text.trim() == "1" => Check::ok(name, "net.ipv4.ip_forward = 1"),
        Ok(text) => Check::warning(
            name,
            format!(
                "net.ipv4.ip_forward = {}; a VM's packets go no further than the host",
                text.trim()
            ),
            "run clouded as root, which turns it on, or: sudo sysctl -w net.ipv4.ip_forward=1",
        ),
        Err(error) => Check::warning(
            name,
            format!("net.ipv4.ip_forward: {error}"),
            "use a kernel with IPv4",
        ),
    }
}
