//! An attachment that is given back however its VM comes to its end.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cloude_protocol::agent::NetworkIdentity;
use cloude_protocol::boot::NetworkConfig;

use super::{Attachment, Network, NetworkError};

/// One VM's TAP, address and rules. [`Attached::release`] gives them back and waits for that; dropped, they
/// are given back by a task of the network's. Either way the VM must have ended before.
#[derive(Debug)]
pub struct Attached {
    network: Arc<Network>,
    /// None once it is given back.
    attachment: Option<Attachment>,
}

impl Attached {
    /// A TAP, an address and the right to use them, all a VM's own.
    pub async fn new(network: &Arc<Network>, outbound: bool) -> Result<Self, NetworkError> {
        let attachment = network.prepare(outbound).await?;
        // From here on it is given back whatever happens, also if nobody waits for the rules any more.
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
            // It is taken out by what consumes or drops `self`, and by nothing else.
            None => unreachable!("an attachment that was given back is asked"),
        }
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.get().lease.ip()
    }

    /// Its hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.get().lease.mac()
    }

    /// What the agent is told at boot.
    pub fn guest(&self) -> &NetworkConfig {
        &self.get().guest
    }

    /// What the agent of a fork is told.
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

    /// Takes the TAP, which vanishes with the last copy of its descriptor: the worker's should be that.
    pub fn take_tap(&mut self) -> Option<OwnedFd> {
        Some(self.attachment.as_mut()?.tap.take()?.into())
    }

    /// Gives everything back, and waits for that. Nothing stays behind if the caller stops waiting.
    pub async fn release(mut self) {
        if let Some(attachment) = self.attachment.take() {
            let network = Arc::clone(&self.network);
            let detached = self
                .network
                .releases
                .spawn(async move { network.detach(attachment).await });
            if let Err(error) = detached.await {
                tracing::error!(%error, "giving a VM's address back");
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let Some(attachment) = self.attachment.take() else {
            return;
        };
        // Without a runtime the process is at its end, and the whole network is taken down or was.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let network = Arc::clone(&self.network);
            let release = async move { network.detach(attachment).await };
            self.network.releases.spawn_on(release, &runtime);
        }
    }
}
