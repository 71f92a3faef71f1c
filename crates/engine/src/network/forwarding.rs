//! `net.ipv4.ip_forward`: switched on for the bridges of engines, and off again after the last one.

use std::path::{Path, PathBuf};

use super::error::NetworkError;
use super::links::Links;
use super::nft::FORWARDING_GROUP;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The sysctl. A file in the run directory records that it was off before an engine switched it on. While several
/// engines need it, each has such a file and a bridge in [`FORWARDING_GROUP`], and the last one restores it.
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

    /// True if it is off, or only on for the bridges of other engines.
    pub async fn is_to_be_set(&self, links: &Links) -> Result<bool, NetworkError> {
        let value = std::fs::read_to_string(IP_FORWARD).map_err(failed(Path::new(IP_FORWARD)))?;
        Ok(value.trim() != "1" || is_shared(links, "").await?)
    }

    /// Sets it to 1 and records that it was 0.
    pub fn enable(&self) -> Result<(), NetworkError> {
        // Recorded first: after a crash in between, the next start writes the 0 that is there already.
        std::fs::write(&self.note, "").map_err(failed(&self.note))?;
        std::fs::write(IP_FORWARD, "1").map_err(failed(Path::new(IP_FORWARD)))?;
        tracing::info!(
            "net.ipv4.ip_forward is on for the bridge; packets between other interfaces are dropped"
        );
        Ok(())
    }

    /// Sets it to 0 if [`Forwarding::enable`] was called, unless the bridge of another engine needs it. `bridge` is
    /// this engine's own.
    pub async fn restore(&self, links: &Links, bridge: &str) -> Result<(), NetworkError> {
        if !self.note.exists() {
            return Ok(());
        }
        if !is_shared(links, bridge).await? {
            std::fs::write(IP_FORWARD, "0").map_err(failed(Path::new(IP_FORWARD)))?;
        }
        std::fs::remove_file(&self.note).map_err(failed(&self.note))
    }
}

/// True if an engine whose bridge is another one has switched it on.
async fn is_shared(links: &Links, bridge: &str) -> Result<bool, NetworkError> {
    let links = links.all().await?;
    let others = links.iter().filter(|link| link.name != bridge);
    Ok(others
        .into_iter()
        .any(|link| link.group == FORWARDING_GROUP))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::File { path, source }
}
