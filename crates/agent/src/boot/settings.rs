//! Settings of the kernel that make up for a program that is not root, as container engines make them.

use std::fs;

/// Below /proc/sys.
const SETTINGS: [(&str, &str); 3] = [
    // Any user may serve on port 80. The agent's own port stays bound.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    // Any user may use ping: ICMP echo sockets need no capability.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // The kernel's log has addresses of the kernel.
    ("kernel/dmesg_restrict", "1"),
];

/// Writes the settings. A kernel may lack one.
pub fn apply() {
    for (name, value) in SETTINGS {
        let _ = fs::write(format!("/proc/sys/{name}"), value);
    }
}
