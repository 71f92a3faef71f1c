//! The tables of a bridge with the elements of all VMs: applied, compared, and applied again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{RwLock, watch};

use super::error::NetworkError;
use super::nft::{self, VmRule};

/// The nftables rules of one bridge.
#[derive(Debug)]
pub struct Firewall {
    bridge: String,
    /// Replaces both tables.
    script: String,
    /// Elements of VMs that the tables have, or get with the next transaction.
    vms: Mutex<BTreeMap<Ipv4Addr, VmRule>>,
    /// Shared by transactions for one VM, held alone by those for the whole tables.
    gate: RwLock<()>,
    /// The listing of the tables after they were first applied. The rules do not change, so later listings must equal
    /// it.
    expected: Mutex<Option<String>>,
    /// The reason for which the tables are not there. VMs must not run then.
    broken: watch::Sender<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Firewall {
    /// A firewall whose rules are not applied yet.
    pub fn new(bridge: &str, script: String) -> Self {
        Firewall {
            bridge: bridge.to_owned(),
            script,
            vms: Mutex::default(),
            gate: RwLock::default(),
            expected: Mutex::default(),
            broken: watch::Sender::default(),
        }
    }

    /// The bridge.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Applies the tables for the first time.
    pub async fn set_up(&self) -> Result<(), NetworkError> {
        self.apply().await?;
        let listing = nft::listing(&self.bridge).await?;
        *lock(&self.expected) = Some(listing);
        Ok(())
    }

    /// Replaces both tables, with the elements of all VMs, in one transaction. After an error
    /// [`Firewall::broken`] has its reason until a later call succeeds.
    pub async fn apply(&self) -> Result<(), NetworkError> {
        let _alone = self.gate.write().await;
        let result = self.apply_alone().await;
        let reason = result.as_ref().err().map(ToString::to_string);
        self.broken.send_if_modified(|broken| {
            let modified = *broken != reason;
            *broken = reason;
            modified
        });
        result
    }

    async fn apply_alone(&self) -> Result<(), NetworkError> {
        let mut script = self.script.clone();
        for rule in lock(&self.vms).values() {
            script.push_str(&rule.addition(&self.bridge));
        }
        nft::apply(&script).await
    }

    /// Applies the tables again if they are not as they were applied. Returns true if that was necessary.
    pub async fn check(&self) -> Result<bool, NetworkError> {
        // Also the notifications of our own transactions lead here.
        let intact = {
            let _alone = self.gate.write().await;
            if lock(&self.expected).is_none() {
                // They are being set up.
                return Ok(false);
            }
            // A missing table is an error of the listing.
            let listing = nft::listing(&self.bridge).await.unwrap_or_default();
            lock(&self.expected).as_ref() == Some(&listing)
        };
        if intact {
            return Ok(false);
        }
        self.apply().await?;
        Ok(true)
    }

    /// Admits a VM. If the tables are not there, they are applied again.
    pub async fn admit(&self, rule: &VmRule) -> Result<(), NetworkError> {
        let added = {
            let _shared = self.gate.read().await;
            lock(&self.vms).insert(rule.ip, rule.clone());
            nft::apply(&rule.addition(&self.bridge)).await
        };
        match added {
            Err(NetworkError::NftRefused(reason)) => {
                tracing::warn!(
                    reason,
                    "the firewall rules are not there; applying them again"
                );
                self.apply().await
            }
            added => added,
        }
    }

    /// Removes a VM's elements.
    pub async fn dismiss(&self, rule: &VmRule) -> Result<(), NetworkError> {
        let _shared = self.gate.read().await;
        // Without this VM's elements from here on, should the tables be applied again.
        lock(&self.vms).remove(&rule.ip);
        nft::apply(&rule.removal(&self.bridge)).await
    }

    /// Removes both tables.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        let _alone = self.gate.write().await;
        nft::apply(&nft::removal(&self.bridge)).await
    }

    /// The reason for which VMs must not run; `None` while the tables are there.
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.subscribe()
    }
}
