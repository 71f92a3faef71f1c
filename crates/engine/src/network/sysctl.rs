//! The sysctls of the network: set, and restored.

use std::path::{Path, PathBuf};

use super::error::NetworkError;

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

/// Disables IPv6 on the bridge, so that the host has no link-local address that a VM could reach.
pub fn disable_ipv6(bridge: &str) -> Result<(), NetworkError> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"));
    // The file is missing on a kernel without IPv6.
    if path.exists() {
        write(&path, "1")
    } else {
        Ok(())
    }
}

/// `net.ipv4.ip_forward`. A file in the run directory records that this program set it.
#[derive(Debug)]
pub struct Forwarding {
    note: PathBuf,
}

impl Forwarding {
    /// The record lies in `run_dir`.
    pub fn new(run_dir: &Path) -> Self {
        Forwarding {
            note: run_dir.join("ip_forward.was-off"),
        }
    }

    /// Sets it to 1 and records that it was 0.
    pub fn enable(&self) -> Result<(), NetworkError> {
        let path = Path::new(IP_FORWARD);
        if read(path)? == "1" {
            return Ok(());
        }
        // Recorded first: after a crash in between, the next start writes the 0 that is there already.
        write(&self.note, "")?;
        write(path, "1")
    }

    /// Sets it to 0 if this program set it to 1.
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
