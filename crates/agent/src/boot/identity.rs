//! Who the VM is: host name, machine id, and the files that say so.

use std::fs;
use std::path::Path;

use cloude_protocol::boot::BootConfig;

/// Set the host name and what belongs to it. An image whose /etc cannot be written goes without.
pub fn apply(boot: &BootConfig) {
    if let Err(errno) = nix::unistd::sethostname(&boot.hostname) {
        println!("cloude-agent: host name {:?}: {errno}", boot.hostname);
    }
    // Programs without the right to raw sockets may still ping.
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    let _ = fs::create_dir_all("/etc");
    replace("/etc/hostname", &format!("{}\n", boot.hostname));
    let known = fs::read("/etc/hosts").unwrap_or_default();
    replace("/etc/hosts", &hosts(&String::from_utf8_lossy(&known), boot));
    // A fresh one each boot, by the kernel's own generator: an image's would be every VM's.
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

/// What the image says, and last the VM's own name, as container runtimes have it: a program that asks for
/// its own host must not wait for a name server.
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

/// Not through a symbolic link, which may lead to a service's file that does not exist here.
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
    fn a_vm_knows_its_own_name_and_what_its_image_knew() {
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
