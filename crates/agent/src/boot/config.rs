//! The configuration of the VM: files of the initramfs, or the kernel's command line.

use std::net::Ipv4Addr;
use std::path::Path;

use cloude_protocol::boot::{BootConfig, NetworkConfig};
use serde::de::DeserializeOwned;

/// The host name without a configuration.
const DEFAULT_HOSTNAME: &str = "cloude";

/// Reads a JSON file; none if it does not exist.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(format!("{}: {error}", path.display())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Reads a JSON file and deletes it: boot.json contains the VM's token, which programs must not read.
pub fn read_once<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let value = read(path)?;
    if value.is_some() {
        std::fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(value)
}

/// Reads `cloude.shell`, `cloude.hostname=NAME` and `cloude.ip=ADDRESS/PREFIX[,GATEWAY]`, for a VM without
/// boot.json. Such a VM has no token, so that every request is answered 401.
pub fn from_cmdline(cmdline: &str) -> Result<BootConfig, String> {
    let mut boot = BootConfig {
        token: String::new(),
        hostname: DEFAULT_HOSTNAME.to_owned(),
        network: None,
        copy_output_to_console: false,
        shell: false,
        template: false,
    };
    for word in cmdline.split_ascii_whitespace() {
        match word.split_once('=') {
            None if word == "cloude.shell" => boot.shell = true,
            Some(("cloude.hostname", name)) => boot.hostname = name.to_owned(),
            Some(("cloude.ip", value)) => {
                let network = network(value).ok_or_else(|| {
                    format!("invalid cloude.ip={value} on the kernel's command line: give ADDRESS/PREFIX[,GATEWAY]")
                })?;
                boot.network = Some(network);
            }
            _ => {}
        }
    }
    Ok(boot)
}

fn network(value: &str) -> Option<NetworkConfig> {
    let (subnet, gateway) = match value.split_once(',') {
        Some((subnet, gateway)) => (subnet, Some(gateway.parse::<Ipv4Addr>().ok()?)),
        None => (value, None),
    };
    let (address, prefix_len) = subnet.split_once('/')?;
    let prefix_len = prefix_len
        .parse()
        .ok()
        .filter(|length| (1..=32).contains(length))?;
    Some(NetworkConfig {
        address: address.parse().ok()?,
        prefix_len,
        gateway,
        dns: Vec::new(),
        mtu: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_gives_address_and_shell() {
        let boot = from_cmdline("console=ttyS0 cloude.shell cloude.ip=10.0.0.2/24,10.0.0.1 x=y\n")
            .unwrap();
        let network = boot.network.unwrap();
        assert!(boot.shell && boot.token.is_empty());
        assert_eq!(
            (network.address, network.prefix_len),
            (Ipv4Addr::new(10, 0, 0, 2), 24)
        );
        assert_eq!(network.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
    }

    #[test]
    fn a_malformed_address_is_refused() {
        for value in [
            "10.0.0.2",
            "10.0.0.2/33",
            "10.0.0.2/0",
            "10.0.0/8",
            "10.0.0.2/8,x",
            "",
        ] {
            assert!(
                from_cmdline(&format!("cloude.ip={value}")).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn boot_json_is_deleted_once_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boot.json");
        std::fs::write(&path, r#"{"token": "t", "hostname": "h"}"#).unwrap();
        let boot: BootConfig = read_once(&path).unwrap().unwrap();
        assert_eq!(boot.token, "t");
        assert!(!path.exists());
        assert_eq!(read_once::<BootConfig>(&path).unwrap(), None);
    }
}
