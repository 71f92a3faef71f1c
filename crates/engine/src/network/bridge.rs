//! The bridge: its rules, and a TAP for each VM.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use cloude_protocol::boot::NetworkConfig;
use cloude_vmm::control::EgressSpec;
use tokio_util::task::TaskTracker;

use super::addresses::{AddressPool, Lease, Range};
use super::error::NetworkError;
use super::links::Links;
use super::nft::{self, Rules, VmRule};
use super::policy::Policy;
use super::sysctl::{self, Forwarding};
use super::tap;
use crate::config;

/// The first six bytes of the names of a bridge's TAPs. The VM's address follows in hexadecimal: 15 bytes in all,
/// the kernel's limit (IFNAMSIZ). The prefix differs between bridges, so that two servers do not collide.
pub fn tap_prefix(bridge: &str) -> String {
    // FNV-1a, folded to 16 bits.
    let hash = bridge.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("ct{:04x}", (hash >> 16) ^ (hash & 0xffff))
}

/// The bridge with its firewall rules. [`Network::remove`] removes both.
#[derive(Debug)]
pub struct Network {
    config: config::Network,
    links: Links,
    bridge: u32,
    /// Of the VMs' devices.
    pub(super) policy: Policy,
    addresses: AddressPool,
    forwarding: Forwarding,
    /// Tasks that release attachments.
    pub(super) releases: TaskTracker,
}

/// The host side of a VM's network device.
#[derive(Debug)]
pub struct Attachment {
    /// The TAP's descriptor, until the worker receives it.
    pub tap: Option<File>,
    /// The TAP's name.
    pub name: String,
    /// The VM's address.
    pub lease: Lease,
    /// The VM reaches the internet.
    pub outbound: bool,
    /// The guest's network configuration.
    pub guest: NetworkConfig,
    /// The filter of the guest's device.
    pub egress: EgressSpec,
}

impl Network {
    /// Removes the remains of a killed process, and sets up the bridge. Addresses are given out from the one
    /// after `last_used`. `run_dir` records the sysctl to restore if this process is killed.
    pub async fn set_up(
        config: &config::Network,
        run_dir: &Path,
        last_used: Option<Ipv4Addr>,
    ) -> Result<Self, NetworkError> {
        let range = Range::parse(&config.range, config.mask.as_deref())?;
        let policy = Policy::new(config, range)?;
        let links = Links::open()?;
        clean(&links, &config.bridge, run_dir).await?;
        let bridge = match links
            .create_bridge(&config.bridge, &range, config.mtu)
            .await
        {
            Ok(bridge) => bridge,
            Err(error) => {
                // The link may exist without its address.
                let _ = links.remove(&config.bridge).await;
                return Err(error);
            }
        };
        let forwarding = Forwarding::new(run_dir);
        let network = Network {
            config: config.clone(),
            links,
            bridge,
            policy,
            addresses: AddressPool::new(range, last_used),
            forwarding,
            releases: TaskTracker::new(),
        };
        if let Err(error) = network.set_rules().await {
            network.remove().await;
            return Err(error);
        }
        tracing::info!(
            bridge = config.bridge,
            range = range.cidr(),
            "network is up"
        );
        Ok(network)
    }

    async fn set_rules(&self) -> Result<(), NetworkError> {
        sysctl::disable_ipv6(&self.config.bridge)?;
        let rules = Rules {
            bridge: &self.config.bridge,
            tap_prefix: &tap_prefix(&self.config.bridge),
            range: self.addresses.range(),
            allow: &self.config.allow,
        };
        // Rules before forwarding, so that no packet is routed unfiltered.
        nft::apply(&rules.script()).await?;
        self.forwarding.enable()
    }

    /// Leases an address, creates a TAP and permits it. [`super::Attached`] also releases them.
    pub async fn attach(&self, outbound: bool) -> Result<Attachment, NetworkError> {
        let attachment = self.prepare(outbound).await?;
        if let Err(error) = self.permit(&attachment).await {
            self.detach(attachment).await;
            return Err(error);
        }
        Ok(attachment)
    }

    /// Leases an address and creates a TAP on the bridge. The rules drop its packets until [`Network::permit`].
    pub(super) async fn prepare(&self, outbound: bool) -> Result<Attachment, NetworkError> {
        let lease = self.addresses.lease()?;
        let [a, b, c, d] = lease.ip().octets();
        let name = format!(
            "{}{a:02x}{b:02x}{c:02x}{d:02x}",
            tap_prefix(&self.config.bridge)
        );
        let tap = tap::create(&name).map_err(|source| NetworkError::Tap {
            name: name.clone(),
            source,
        })?;
        self.links
            .attach(&name, self.bridge, self.config.mtu)
            .await?;
        let host = self.links.addresses().await?;
        let range = self.addresses.range();
        let guest = NetworkConfig {
            address: lease.ip(),
            prefix_len: range.prefix_len,
            gateway: Some(range.gateway),
            dns: if outbound {
                self.config.dns.clone()
            } else {
                Vec::new()
            },
            mtu: Some(self.config.mtu.into()),
        };
        Ok(Attachment {
            tap: Some(tap),
            name,
            egress: self.policy.egress(lease.ip(), outbound, &host),
            lease,
            outbound,
            guest,
        })
    }

    /// Adds the rule that accepts packets from the TAP with its MAC and IP addresses, and the host's neighbour entry.
    pub(super) async fn permit(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        self.rule(attachment).add().await?;
        let lease = &attachment.lease;
        self.links
            .add_neighbour(self.bridge, lease.ip(), lease.mac())
            .await
    }

    /// Removes the VM's rule and neighbour entry. The TAP vanishes with its last descriptor.
    pub async fn detach(&self, attachment: Attachment) {
        if let Err(error) = self.rule(&attachment).remove().await {
            tracing::warn!(tap = attachment.name, %error, "removing a VM's firewall rule");
        }
        let ip = attachment.lease.ip();
        if let Err(error) = self.links.remove_neighbour(self.bridge, ip).await {
            tracing::warn!(tap = attachment.name, %error, "removing a VM's neighbour entry");
        }
    }

    fn rule<'a>(&'a self, attachment: &'a Attachment) -> VmRule<'a> {
        VmRule {
            bridge: &self.config.bridge,
            tap: &attachment.name,
            mac: attachment.lease.mac(),
            ip: attachment.lease.ip(),
            outbound: attachment.outbound,
        }
    }

    /// Removes bridge and rules, and restores the sysctl. Failures are logged; the next start tries again.
    pub async fn remove(&self) {
        self.releases.close();
        self.releases.wait().await;
        let result = async {
            self.forwarding.restore()?;
            nft::apply(&Rules::removal(&self.config.bridge)).await?;
            self.links.remove(&self.config.bridge).await
        };
        if let Err(error) = result.await {
            tracing::error!(%error, "removing the network");
        }
    }
}

/// Removes the remains of a killed process: TAPs, bridge, rules, and the sysctl that it set.
pub async fn clean_up(config: &config::Network, run_dir: &Path) -> Result<(), NetworkError> {
    clean(&Links::open()?, &config.bridge, run_dir).await
}

async fn clean(links: &Links, bridge: &str, run_dir: &Path) -> Result<(), NetworkError> {
    for tap in links.with_prefix(&tap_prefix(bridge)).await? {
        links.remove(&tap).await?;
    }
    links.remove(bridge).await?;
    nft::apply(&Rules::removal(bridge)).await?;
    Forwarding::new(run_dir).restore()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_names_fit_and_differ_by_bridge() {
        let name = format!("{}ac1e0002", tap_prefix("cloude0"));
        assert!(name.len() <= 15, "{name}");
        assert_ne!(tap_prefix("cloude0"), tap_prefix("cloude1"));
    }
}
