//! Removes what a killed process left: links with its mark, its tables, and the sysctl that it set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::NetworkError;
use super::forwarding::Forwarding;
use super::links::Links;
use super::mark::{BridgeLock, Mark};
use super::nft;

/// A file in the run directory with the name of the bridge, whose tables a start after a crash removes.
#[derive(Debug)]
pub struct BridgeNote(PathBuf);

impl BridgeNote {
    fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("bridge")
    }

    /// Written before the bridge is created.
    pub fn write(run_dir: &Path, bridge: &str) -> Result<Self, NetworkError> {
        let path = Self::path(run_dir);
        match std::fs::write(&path, bridge) {
            Ok(()) => Ok(BridgeNote(path)),
            Err(source) => Err(NetworkError::File { path, source }),
        }
    }

    /// Removes the file: nothing is left.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "removing the note of the bridge");
        }
    }
}

/// Removes what a killed process with the same run directory left. Links of others stay.
pub async fn clean_up(run_dir: &Path) -> Result<(), NetworkError> {
    clean(&Links::open()?, run_dir).await
}

/// [`clean_up`] over an open socket.
pub async fn clean(links: &Links, run_dir: &Path) -> Result<(), NetworkError> {
    let mark = Mark::of(run_dir);
    let note = BridgeNote(BridgeNote::path(run_dir));
    let mut bridges: BTreeSet<String> = std::fs::read_to_string(&note.0)
        .map(|name| name.trim().to_owned())
        .into_iter()
        .collect();
    for link in links.all().await? {
        if link.alias.as_deref() != Some(mark.alias()) {
            continue;
        }
        tracing::info!(link = link.name, "removing a link of an earlier process");
        links.remove(link.index).await?;
        // Also for a TAP, which has no tables: removing none is no error.
        bridges.insert(link.name);
    }
    for bridge in &bridges {
        // Another engine may have taken the name since.
        if let Ok(_lock) = BridgeLock::take(bridge)
            && links.find(bridge).await.is_none()
        {
            nft::apply(&nft::removal(bridge)).await?;
        }
    }
    Forwarding::new(run_dir).restore(links, "").await?;
    note.remove();
    Ok(())
}
