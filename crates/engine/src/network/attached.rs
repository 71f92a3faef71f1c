//! An attachment that is released on every path.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cloude_protocol::agent::NetworkIdentity;
use cloude_protocol::boot::NetworkConfig;
use cloude_vmm::control::{EgressSpec, NetLimits};

use super::bridge::{Attachment, Network};
use super::error::NetworkError;

/// A VM's TAP, address and firewall rule. [`Attached::release`] releases them and waits; dropping the value
/// releases them in a task. Either way the VM must have ended before.
#[derive(Debug)]
pub struct Attached {
    network: Arc<Network>,
    /// `None` once it is released.
    attachment: Option<Attachment>,
}

impl Attached {
    /// Leases an address, creates a TAP and adds the firewall rule.
    pub async fn new(network: &Arc<Network>, outbound: bool) -> Result<Self, NetworkError> {
        let attachment = network.prepare(outbound).await?;
        // From here on the attachment is released even if this future is dropped while it adds the rule.
        let attached = Attached {
            network: Arc::clone(network),
            attachment: Some(attachment),
        };
        if let Some(attachment) = &attached.attachment {
            network.permit(attachment).await?;
        }
        Ok(attached)
    }

    fn get(&self) -> &Attachment {
        match &self.attachment {
            Some(attachment) => attachment,
            // Only `release` and `drop` take it, and both end `self`.
            None => unreachable!("a released attachment was used"),
        }
    }

    /// The VM's address.
    pub fn ip(&self) -> Ipv4Addr {
        self.get().lease.ip()
    }

    /// The VM's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.get().lease.mac()
    }

    /// The filter of the VM's device.
    pub fn egress(&self) -> EgressSpec {
        self.get().egress.clone()
    }

    /// The limits of the VM's device.
    pub fn limits(&self) -> NetLimits {
        self.network.policy.limits()
    }

    /// The reason for which the VM must not run: its firewall rules are not there.
    pub fn broken(&self) -> Option<String> {
        self.network.broken().borrow().clone()
    }

    /// Waits until [`Attached::broken`] has a reason. Cancel safe.
    pub async fn until_broken(&self) -> String {
        let mut broken = self.network.broken();
        let reason = broken.wait_for(Option::is_some).await.ok();
        let reason = reason.and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender lives as long as the network, which `self` holds.
            None => std::future::pending().await,
        }
    }

    /// The network configuration that the agent reads at boot.
    pub fn guest(&self) -> &NetworkConfig {
        &self.get().guest
    }

    /// The network part of a fork's identity.
    pub fn identity(&self) -> NetworkIdentity {
        NetworkIdentity {
            mac: self.mac(),
            config: self.guest().clone(),
        }
    }

    /// The TAP, until it is taken.
    pub fn tap(&self) -> Option<BorrowedFd<'_>> {
        self.get().tap.as_ref().map(AsFd::as_fd)
    }

    /// Takes the TAP's descriptor. The TAP vanishes with its last descriptor, which should be the worker's.
    pub fn take_tap(&mut self) -> Option<OwnedFd> {
        Some(self.attachment.as_mut()?.tap.take()?.into())
    }

    /// Releases everything and waits. The release goes on if the caller drops this future.
    pub async fn release(mut self) {
        if let Some(attachment) = self.attachment.take() {
            let network = Arc::clone(&self.network);
            let detached = self
                .network
                .releases
                .spawn(async move { network.detach(attachment).await });
            if let Err(error) = detached.await {
                tracing::error!(%error, "releasing a VM's address");
            }
        }
    }
}

/// Releases the attachment of a VM that has one ([`Attached::release`]).
pub async fn release(attached: Option<Attached>) {
    if let Some(attached) = attached {
        attached.release().await;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let Some(attachment) = self.attachment.take() else {
            return;
        };
        // Without a runtime the process is about to exit, and the whole network is removed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let network = Arc::clone(&self.network);
            let release = async move { network.detach(attachment).await };
            self.network.releases.spawn_on(release, &runtime);
        }
    }
}
