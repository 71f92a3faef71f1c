//! Host name and machine id at boot, and the files in /etc that contain them.

use std::fs;
use std::path::Path;

use cloude_protocol::boot::BootConfig;

/// Sets the host name and writes /etc/hostname, hosts, machine-id and resolv.conf. Errors are logged: an image
/// may have an unwritable /etc.
pub fn apply(boot: &BootConfig) {
    if let Err(errno) = nix::unistd::sethostname(&boot.hostname) {
        println!("cloude-agent: sethostname({:?}): {errno}", boot.hostname);
    }
    // Unprivileged ICMP sockets, so that ping works without CAP_NET_RAW.
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    let _ = fs::create_dir_all("/etc");
    replace("/etc/hostname", &format!("{}\n", boot.hostname));
    let known = fs::read("/etc/hosts").unwrap_or_default();
    replace("/etc/hosts", &hosts(&String::from_utf8_lossy(&known), boot));
    // The kernel's boot id is random; a machine-id of the image would be the same in every VM.
    if let Ok(id) = fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        replace("/etc/machine-id", &id.replace('-', ""));
    }
    let servers = boot.network.iter().flat_map(|network| &network.dns);
    let resolv: String = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    if !resolv.is_empty() {
        replace("/etc/resolv.conf", &resolv);
    }
}

/// The image's /etc/hosts with a last line for the VM's name, as container runtimes write it. Without the line a
/// look-up of the host name waits for a name server.
fn hosts(known: &str, boot: &BootConfig) -> String {
    let address = match &boot.network {
        Some(network) => network.address.to_string(),
        None => "127.0.1.1".to_owned(),
    };
    let known = match known.trim_end() {
        "" => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback",
        known => known,
    };
    format!("{known}\n{address}\t{}\n", boot.hostname)
}

/// Writes a file. A symbolic link is replaced: it may point to a file of a service that does not run here.
pub fn replace(path: &str, content: &str) {
    if fs::symlink_metadata(Path::new(path)).is_ok() {
        let _ = fs::remove_file(path);
    }
    if let Err(error) = fs::write(path, content) {
        println!("cloude-agent: {path}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> BootConfig {
        serde_json::from_str(r#"{ "token": "", "hostname": "vm-1", "network": null }"#).unwrap()
    }

    #[test]
    fn hosts_keeps_the_images_lines_and_adds_the_vms_name() {
        let own = "\n127.0.1.1\tvm-1\n";
        assert_eq!(
            hosts("127.0.0.1\tlocalhost\n10.0.0.1\tdb\n\n", &boot()),
            format!("127.0.0.1\tlocalhost\n10.0.0.1\tdb{own}")
        );
        let without = hosts("", &boot());
        assert!(
            without.starts_with("127.0.0.1\tlocalhost\n") && without.ends_with(own),
            "{without}"
        );
    }
}
