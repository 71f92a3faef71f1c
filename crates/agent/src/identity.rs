//! Applies a fork's identity: entropy, clock, names, network. If any part fails, the fork never runs a program.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use cloude_protocol::agent::Identity;

use crate::net;

/// Bind-mounted over /proc/sys/kernel/random/boot_id in each stage of a template or fork. The identity rewrites it.
pub const BOOT_ID: &str = "/run/cloude-boot-id";
const MACHINE_ID: &str = "/etc/machine-id";

/// `_IOW('R', 0x03, int [2])` (include/uapi/linux/random.h).
const RNDADDENTROPY: u64 = 0x4008_5203;
/// `_IO('R', 0x07)`.
const RNDRESEEDCRNG: u64 = 0x5207;
const ENTROPY_BYTES: usize = 32;

/// `struct rand_pool_info` with its buffer (include/uapi/linux/random.h).
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    bytes: i32,
    buffer: [u8; ENTROPY_BYTES],
}

/// Checks an identity before any of it is applied. Returns its entropy.
pub fn check(identity: &Identity) -> Result<[u8; ENTROPY_BYTES], String> {
    let entropy =
        bytes(&identity.entropy).ok_or("identity.entropy must have 64 hexadecimal digits")?;
    if identity.wall_clock_ns == 0 || i64::try_from(identity.wall_clock_ns).is_err() {
        return Err("identity.wall_clock_ns must be nanoseconds since 1970".into());
    }
    let name = &identity.hostname;
    if name.is_empty() || name.len() > 64 || name.contains(['\0', '\n', '/', ' ']) {
        return Err(
            "identity.hostname must have 1 to 64 bytes without space, slash, newline or NUL".into(),
        );
    }
    let id = &identity.machine_id;
    if id.len() != 32 || !id.bytes().all(is_hex) || id.bytes().all(|digit| digit == b'0') {
        return Err(
            "identity.machine_id must have 32 lower-case hexadecimal digits, not all 0".into(),
        );
    }
    let uuid = identity.boot_id.bytes().enumerate().all(|(at, byte)| {
        if matches!(at, 8 | 13 | 18 | 23) {
            byte == b'-'
        } else {
            is_hex(byte)
        }
    });
    if identity.boot_id.len() != 36 || !uuid {
        return Err("identity.boot_id must be a lower-case UUID".into());
    }
    if bytes(&identity.token).is_none() {
        return Err("identity.token must have 64 hexadecimal digits".into());
    }
    match &identity.network {
        Some(network) if network.mac[0] & 1 != 0 => {
            Err("identity.network.mac must be a unicast address".into())
        }
        Some(network) if !(1..=32).contains(&network.config.prefix_len) => {
            Err("identity.network.config.prefix_len must be 1 to 32".into())
        }
        _ => Ok(entropy),
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn bytes(hex: &str) -> Option<[u8; ENTROPY_BYTES]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * ENTROPY_BYTES {
        return None;
    }
    let mut out = [0; ENTROPY_BYTES];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(out)
}

/// Applies a checked identity to this VM. After an error the VM must not run a program.
pub fn apply(identity: &Identity, entropy: [u8; ENTROPY_BYTES]) -> Result<(), String> {
    add_entropy(entropy).map_err(|error| format!("RNDADDENTROPY on /dev/urandom: {error}"))?;
    set_clock(identity.wall_clock_ns)
        .map_err(|error| format!("clock_settime(CLOCK_REALTIME): {error}"))?;
    let old = nix::unistd::gethostname().unwrap_or_default();
    nix::unistd::sethostname(&identity.hostname)
        .map_err(|errno| format!("sethostname: {errno}"))?;
    rename(&old.to_string_lossy(), identity)?;
    // In place, not renamed over: a waiting interpreter has bind mounts of these files.
    write(MACHINE_ID, &format!("{}\n", identity.machine_id))?;
    write(BOOT_ID, &format!("{}\n", identity.boot_id))?;
    let Some(network) = &identity.network else {
        return Ok(());
    };
    net::set_mac(network.mac).map_err(|error| error.to_string())?;
    net::announce();
    net::configure(&network.config).map_err(|error| error.to_string())?;
    net::check(network.mac, network.config.address).map_err(|error| error.to_string())?;
    let servers = network.config.dns.iter();
    let resolv: String = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    // Also without servers: the file may have those of the template.
    let _ = fs::remove_file("/etc/resolv.conf");
    write("/etc/resolv.conf", &resolv)
}

/// Credits the bytes and reseeds the kernel's generator at once. All forks start with the template's state.
fn add_entropy(buffer: [u8; ENTROPY_BYTES]) -> std::io::Result<()> {
    let random = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    let pool = PoolInfo {
        entropy_bits: 8 * ENTROPY_BYTES as i32,
        bytes: ENTROPY_BYTES as i32,
        buffer,
    };
    // SAFETY: the structure that RNDADDENTROPY takes, with the number of bytes that it states.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const pool) };
    // SAFETY: RNDRESEEDCRNG takes no argument.
    if added != 0 || unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Sets CLOCK_REALTIME, in nanoseconds since 1970.
pub fn set_clock(ns: u64) -> std::io::Result<()> {
    let time = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as _,
    };
    // SAFETY: `time` outlives the call.
    match unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Replaces the template's host name in /etc/hostname and /etc/hosts. Files of the image with other content stay.
fn rename(old: &str, identity: &Identity) -> Result<(), String> {
    let new = &identity.hostname;
    if fs::read_to_string("/etc/hostname").is_ok_and(|text| text.trim() == old) {
        write("/etc/hostname", &format!("{new}\n"))?;
    }
    match fs::read_to_string("/etc/hosts") {
        Ok(hosts) => match renamed_hosts(&hosts, old, identity) {
            Some(hosts) => write("/etc/hosts", &hosts),
            None => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

/// /etc/hosts with the fork's line instead of the template's, which is the last one. None if the last line is not
/// the template's.
fn renamed_hosts(hosts: &str, old: &str, identity: &Identity) -> Option<String> {
    let others = hosts.strip_suffix(&format!("\t{old}\n"))?;
    let others = &others[..others.rfind('\n').map_or(0, |at| at + 1)];
    let address = match &identity.network {
        Some(network) => network.config.address.to_string(),
        None => "127.0.1.1".to_owned(),
    };
    Some(format!("{others}{address}\t{}\n", identity.hostname))
}

fn write(path: &str, content: &str) -> Result<(), String> {
    fs::write(Path::new(path), content).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            entropy: "ab".repeat(32),
            wall_clock_ns: 1,
            hostname: "fork-1".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            boot_id: "01234567-89ab-cdef-0123-456789abcdef".into(),
            token: "0".repeat(64),
            network: None,
        }
    }

    #[test]
    fn the_templates_line_in_hosts_alone_is_replaced() {
        let mut fork = identity();
        let others = "127.0.0.1\tlocalhost\n10.0.0.9\tnot-template\n";
        for address in ["127.0.1.1", "172.30.0.2"] {
            let hosts = format!("{others}{address}\ttemplate\n");
            assert_eq!(
                renamed_hosts(&hosts, "template", &fork).unwrap(),
                format!("{others}127.0.1.1\tfork-1\n")
            );
        }
        assert_eq!(renamed_hosts(others, "template", &fork), None);
        fork.network = Some(cloude_protocol::agent::NetworkIdentity {
            mac: [2, 0, 0, 0, 0, 1],
            config: cloude_protocol::boot::NetworkConfig {
                address: std::net::Ipv4Addr::new(172, 30, 0, 9),
                prefix_len: 16,
                gateway: None,
                dns: Vec::new(),
                mtu: None,
            },
        });
        let hosts = format!("{others}172.30.0.2\ttemplate\n");
        let renamed = renamed_hosts(&hosts, "template", &fork).unwrap();
        assert!(renamed.ends_with("\n172.30.0.9\tfork-1\n"), "{renamed}");
        assert!(!renamed.contains("172.30.0.2"), "{renamed}");
    }

    #[test]
    fn a_valid_identity_returns_its_entropy() {
        assert_eq!(check(&identity()), Ok([0xab; 32]));
    }

    #[test]
    fn each_malformed_field_is_refused() {
        let broken: [fn(&mut Identity); 9] = [
            |identity| identity.entropy = "ab".repeat(31),
            |identity| identity.entropy = "zz".repeat(32),
            |identity| identity.wall_clock_ns = 0,
            |identity| identity.wall_clock_ns = u64::MAX,
            |identity| identity.hostname = "a\nb".into(),
            |identity| identity.machine_id = "0".repeat(32),
            |identity| identity.machine_id = "A".repeat(32),
            |identity| identity.boot_id = "0123456789abcdef0123456789abcdef0123".into(),
            |identity| identity.token = String::new(),
        ];
        for (at, breaks) in broken.iter().enumerate() {
            let mut identity = identity();
            breaks(&mut identity);
            assert!(check(&identity).is_err(), "{at}");
        }
    }
}
