//! The kernel's settings that a network needs, and how they are put back.

use std::path::{Path, PathBuf};

use super::NetworkError;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn read(path: &Path) -> Result<String, NetworkError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| NetworkError::Sysctl {
            path: path.to_owned(),
            source,
        })
}

fn write(path: &Path, value: &str) -> Result<(), NetworkError> {
    std::fs::write(path, value).map_err(|source| NetworkError::Sysctl {
        path: path.to_owned(),
        source,
    })
}

/// The bridge speaks no IPv6: the host has no link-local address that a VM could reach.
pub fn disable_ipv6(bridge: &str) -> Result<(), NetworkError> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"));
    // No such file: a kernel without IPv6.
    if path.exists() {
        write(&path, "1")
    } else {
        Ok(())
    }
}

/// `net.ipv4.ip_forward`. A note in the state folder says that we switched it on.
#[derive(Debug)]
pub struct Forwarding {
    note: PathBuf,
}

impl Forwarding {
    /// The note lies in `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Forwarding {
            note: state_dir.join("ip_forward.was-off"),
        }
    }

    /// Switches it on where it is off.
    pub fn enable(&self) -> Result<(), NetworkError> {
        let path = Path::new(IP_FORWARD);
        if read(path)? == "1" {
            return Ok(());
        }
        // The note first: killed in between, the next start writes a 0 that is already there.
        write(&self.note, "")?;
        write(path, "1")
    }

    /// Switches it off again if we switched it on.
    pub fn restore(&self) -> Result<(), NetworkError> {
        if !self.note.exists() {
            return Ok(());
        }
        write(Path::new(IP_FORWARD), "0")?;
        std::fs::remove_file(&self.note).map_err(|source| NetworkError::Sysctl {
            path: self.note.clone(),
            source,
        })
    }
}
