//! The network of VMs that have one: a bridge of our own, a TAP per VM, NAT and isolation.

mod attached;
pub mod links;
pub mod nft;
pub mod pool;
pub mod sysctl;
pub mod tap;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use cloude_protocol::boot::NetworkConfig;

use crate::config;
pub use attached::Attached;
use links::Links;
use nft::{Rules, VmRule};
use pool::{Lease, Pool, Range};
use sysctl::Forwarding;
use tokio_util::task::TaskTracker;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It is switched off.
    #[error("the network is switched off here; set `network.enabled = true`")]
    Disabled,
    /// The configured range is none.
    #[error(transparent)]
    Range(#[from] pool::RangeError),
    /// No address is free.
    #[error(transparent)]
    Exhausted(#[from] pool::Exhausted),
    /// No netlink.
    #[error("opening a netlink socket: {0}")]
    Netlink(#[source] io::Error),
    /// The kernel refused a change to a link.
    #[error("{what}: {source}; the network needs CAP_NET_ADMIN (run clouded as root)")]
    Link {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: Box<rtnetlink::Error>,
    },
    /// A link that was just made is not there.
    #[error("{0} vanished while it was set up")]
    Vanished(String),
    /// The TAP could not be made.
    #[error("making the TAP {name}: {source}; the network needs /dev/net/tun and CAP_NET_ADMIN")]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// nft could not be run.
    #[error("running `nft`: {0}; install the package nftables")]
    Nft(#[source] io::Error),
    /// nft refused the rules.
    #[error("nft refused the rules: {0}")]
    NftRefused(String),
    /// A setting of the kernel's could not be read or written.
    #[error("{path}: {source}")]
    Sysctl {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// `A.B.C.D/N`.
pub fn parse_cidr(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok().filter(|length| *length <= 32)?;
    Some((address.parse().ok()?, length))
}

/// `nft` lies in an sbin that a user's PATH often leaves out.
fn tool_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// What all TAPs of a bridge are called first: distinct per bridge, so that two clouded keep apart,
/// and short enough for the address behind it (15 bytes in all).
pub fn tap_prefix(bridge: &str) -> String {
    // FNV-1a, folded to 16 bits.
    let hash = bridge.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("ct{:04x}", (hash >> 16) ^ (hash & 0xffff))
}

/// The bridge with its rules. Everything is taken down by [`Network::remove`].
#[derive(Debug)]
pub struct Network {
    config: config::Network,
    links: Links,
    bridge: u32,
    pool: Pool,
    forwarding: Forwarding,
    /// Attachments that are being given back.
    releases: TaskTracker,
}

/// One VM's network device and the right to use it.
#[derive(Debug)]
pub struct Attachment {
    /// The TAP's descriptor, until the worker has it.
    pub tap: Option<File>,
    /// The TAP's name.
    pub name: String,
    /// Its address.
    pub lease: Lease,
    /// Whether it may reach beyond the host.
    pub outbound: bool,
    /// What the agent is told.
    pub guest: NetworkConfig,
}

impl Network {
    /// Removes what an earlier run left, and sets up anew. `last_used` is the address after which
    /// to go on; `state_dir` keeps what must be put back should this process be killed.
    pub async fn set_up(
        config: &config::Network,
        state_dir: &Path,
        last_used: Option<Ipv4Addr>,
    ) -> Result<Self, NetworkError> {
        let range = Range::parse(&config.range, config.mask.as_deref())?;
        let links = Links::open()?;
        clean(&links, &config.bridge, state_dir).await?;
        let bridge = match links
            .create_bridge(&config.bridge, &range, config.mtu)
            .await
        {
            Ok(bridge) => bridge,
            Err(error) => {
                // Half made: the link without its address.
                let _ = links.remove(&config.bridge).await;
                return Err(error);
            }
        };
        let forwarding = Forwarding::new(state_dir);
        let network = Network {
            config: config.clone(),
            links,
            bridge,
            pool: Pool::new(range, last_used),
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
            range: self.pool.range(),
            allow: &self.config.allow,
        };
        // Rules before forwarding: no VM is ever routed unfiltered.
        nft::apply(&rules.script()).await?;
        self.forwarding.enable()
    }

    /// Gives a VM an address, a TAP on the bridge, and the right to send from just these.
    /// [`Attached`] also sees to it that they are given back.
    pub async fn attach(&self, outbound: bool) -> Result<Attachment, NetworkError> {
        let attachment = self.prepare(outbound).await?;
        self.permit(&attachment).await?;
        Ok(attachment)
    }

    /// An address and a TAP on the bridge, from which nothing passes yet.
    async fn prepare(&self, outbound: bool) -> Result<Attachment, NetworkError> {
        let lease = self.pool.lease()?;
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
        let range = self.pool.range();
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
            lease,
            outbound,
            guest,
        })
    }

    /// Lets pass what comes from an attachment's TAP with its addresses.
    async fn permit(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        self.rule(attachment).add().await
    }

    /// Takes a VM's rights back. The TAP vanishes with its last descriptor.
    pub async fn detach(&self, attachment: Attachment) {
        if let Err(error) = self.rule(&attachment).remove().await {
            tracing::warn!(tap = attachment.name, %error, "taking a VM's rules back");
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

    /// Takes everything down; what fails is logged, and the next start tries again.
    pub async fn remove(&self) {
        self.releases.close();
        self.releases.wait().await;
        let result = async {
            self.forwarding.restore()?;
            nft::apply(&Rules::removal(&self.config.bridge)).await?;
            self.links.remove(&self.config.bridge).await
        };
        if let Err(error) = result.await {
            tracing::error!(%error, "taking the network down");
        }
    }
}

/// Removes what a killed clouded left behind: TAPs, bridge, rules, and the forwarding it set.
pub async fn clean_up(config: &config::Network, state_dir: &Path) -> Result<(), NetworkError> {
    clean(&Links::open()?, &config.bridge, state_dir).await
}

async fn clean(links: &Links, bridge: &str, state_dir: &Path) -> Result<(), NetworkError> {
    for tap in links.with_prefix(&tap_prefix(bridge)).await? {
        links.remove(&tap).await?;
    }
    links.remove(bridge).await?;
    nft::apply(&Rules::removal(bridge)).await?;
    Forwarding::new(state_dir).restore()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taps_name_fits_and_differs_by_bridge() {
        let name = format!("{}ac1e0002", tap_prefix("cloude0"));
        assert!(name.len() <= 15, "{name}");
        assert_ne!(tap_prefix("cloude0"), tap_prefix("cloude1"));
    }
}
