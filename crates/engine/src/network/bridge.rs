//! The bridge: its rules, and a TAP for each VM.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use cloude_protocol::boot::NetworkConfig;
use cloude_vmm::control::EgressSpec;
use tokio::sync::watch;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::addresses::{AddressPool, Lease, Range};
use super::clean_up;
use super::error::NetworkError;
use super::firewall::Firewall;
use super::forwarding::Forwarding;
use super::links::{Links, disable_ipv6};
use super::mark::{BridgeLock, Mark};
use super::nft::{FORWARDING_GROUP, GROUP, Rules, VmRule};
use super::place::{Place, choose};
use super::policy::Policy;
use super::ports::{Port, add_neighbour, remove_neighbour};
use super::{tap, watcher};
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
    name: String,
    bridge: u32,
    mark: Mark,
    /// The limits of the VMs' devices.
    pub(super) policy: Policy,
    addresses: AddressPool,
    forwarding: Forwarding,
    firewall: Arc<Firewall>,
    watcher: AbortOnDropHandle<()>,
    note: clean_up::BridgeNote,
    _lock: BridgeLock,
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
    /// after `last_used`. `run_dir` identifies the owner of the links, and records the bridge and the sysctl for the
    /// start after a crash.
    pub async fn set_up(
        config: &config::Network,
        run_dir: &Path,
        last_used: Option<Ipv4Addr>,
    ) -> Result<Self, NetworkError> {
        let links = Links::open()?;
        clean_up::clean(&links, run_dir).await?;
        let Place {
            bridge: name,
            lock,
            range,
            choosing,
        } = choose(&links, config).await?;
        let policy = Policy::new(config, range)?;
        let mark = Mark::of(run_dir);
        let forwarding = Forwarding::new(run_dir);
        let ours = forwarding.is_to_be_set(&links).await?;
        let rules = Rules {
            bridge: &name,
            tap_prefix: &tap_prefix(&name),
            range: &range,
            policy: &policy,
            forwarding: ours,
        };
        let firewall = Arc::new(Firewall::new(&name, rules.script()));
        // Before the rules are applied, so that no change of them is missed.
        let watcher = watcher::watch(Arc::clone(&firewall)).map_err(NetworkError::Netlink)?;
        let note = clean_up::BridgeNote::write(run_dir, &name)?;
        let group = if ours { FORWARDING_GROUP } else { GROUP };
        let created = links
            .create_bridge(&name, &range, config.mtu, &mark, group)
            .await;
        drop(choosing);
        let bridge = match created {
            Ok(bridge) => bridge,
            Err(error) => {
                // The link may exist without its mark or its address.
                if let Some(link) = links.find(&name).await {
                    let _ = links.remove(link.index).await;
                }
                note.remove();
                return Err(error);
            }
        };
        let network = Network {
            config: config.clone(),
            links,
            name,
            bridge,
            mark,
            policy,
            addresses: AddressPool::new(range, last_used),
            forwarding,
            firewall,
            watcher,
            note,
            _lock: lock,
            releases: TaskTracker::new(),
        };
        if let Err(error) = network.set_rules(ours).await {
            network.remove().await;
            return Err(error);
        }
        tracing::info!(bridge = network.name, range = range.cidr(), "network is up");
        Ok(network)
    }

    async fn set_rules(&self, forwarding: bool) -> Result<(), NetworkError> {
        disable_ipv6(&self.name)?;
        // Rules before forwarding, so that no packet is routed unfiltered.
        self.firewall.set_up().await?;
        if forwarding {
            self.forwarding.enable()?;
        }
        Ok(())
    }

    /// The name of the bridge.
    pub fn bridge(&self) -> &str {
        &self.name
    }

    /// The subnet of the VMs.
    pub fn range(&self) -> &Range {
        self.addresses.range()
    }

    /// The reason for which VMs must end: their firewall rules were removed and cannot be applied again. `None` while
    /// the rules are there.
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.firewall.broken()
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
        let name = format!("{}{a:02x}{b:02x}{c:02x}{d:02x}", tap_prefix(&self.name));
        let tap = tap::create(&name).map_err(|source| NetworkError::Tap {
            name: name.clone(),
            source,
        })?;
        let port = Port {
            name: &name,
            bridge: self.bridge,
            mtu: self.config.mtu,
            mac: lease.mac(),
            mark: &self.mark,
        };
        port.attach(&self.links).await?;
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
        self.firewall.admit(&rule(attachment)).await?;
        let lease = &attachment.lease;
        add_neighbour(&self.links, self.bridge, lease.ip(), lease.mac()).await
    }

    /// Removes the VM's rule and neighbour entry. The TAP vanishes with its last descriptor.
    pub async fn detach(&self, attachment: Attachment) {
        if let Err(error) = self.firewall.dismiss(&rule(&attachment)).await {
            tracing::warn!(tap = attachment.name, %error, "removing a VM's firewall rule");
        }
        let ip = attachment.lease.ip();
        if let Err(error) = remove_neighbour(&self.links, self.bridge, ip).await {
            tracing::warn!(tap = attachment.name, %error, "removing a VM's neighbour entry");
        }
    }

    /// Removes bridge and rules, and restores the sysctl. Failures are logged; the next start tries again.
    pub async fn remove(&self) {
        self.releases.close();
        self.releases.wait().await;
        self.watcher.abort();
        let result = async {
            self.forwarding.restore(&self.links, &self.name).await?;
            self.firewall.remove().await?;
            if let Some(link) = self.links.find(&self.name).await {
                self.links.remove(link.index).await?;
            }
            self.note.remove();
            Ok::<_, NetworkError>(())
        };
        if let Err(error) = result.await {
            tracing::error!(%error, "removing the network");
        }
    }
}

fn rule(attachment: &Attachment) -> VmRule {
    VmRule {
        tap: attachment.name.clone(),
        mac: attachment.lease.mac(),
        ip: attachment.lease.ip(),
        outbound: attachment.outbound,
    }
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
