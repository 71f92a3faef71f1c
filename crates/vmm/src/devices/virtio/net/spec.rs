//! The settings of the egress filter, and its report: types of the control protocol.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The frames that a guest may send. The device drops all others.
///
/// A frame needs the guest's MAC as its source. ARP passes with the guest's own addresses as sender and the gateway or
/// the guest as target. IPv4 without options passes from `address` through `gateway_mac`. The first rule that matches
/// the destination decides:
///
/// 1. `gateway`: TCP segments that open no connection pass.
/// 2. Without `outbound` nothing else passes.
/// 3. `never` and `deny_ports` are dropped.
/// 4. `allow` passes.
/// 5. `deny` is dropped, except for port 53 of an address in `dns`.
/// 6. Everything else passes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct EgressSpec {
    /// The guest's IPv4 address.
    pub address: Ipv4Addr,
    /// The address of the bridge.
    pub gateway: Ipv4Addr,
    /// The MAC address of the bridge.
    pub gateway_mac: [u8; 6],
    /// The guest may send to other addresses than `gateway`.
    pub outbound: bool,
    /// Networks that `allow` cannot open: the bridge's subnet, and the addresses of the host.
    pub never: Vec<Ipv4Net>,
    /// Exceptions from `deny`.
    pub allow: Vec<Ipv4Net>,
    /// Denied networks.
    pub deny: Vec<Ipv4Net>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Denied destination ports of TCP and UDP.
    pub deny_ports: Vec<u16>,
}

impl Default for EgressSpec {
    /// Only ARP passes.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED,
            gateway: Ipv4Addr::UNSPECIFIED,
            gateway_mac: [0; 6],
            outbound: false,
            never: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            dns: Vec::new(),
            deny_ports: Vec::new(),
        }
    }
}

/// Limits of a network device. 0 is no limit. Each allows a burst of one second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct NetLimits {
    /// Packets per second in each direction. A segmented frame (TSO) counts as its segments.
    pub packets_per_s: u64,
    /// Bytes per second in each direction.
    pub bytes_per_s: u64,
    /// New flows per second that the guest may send: TCP connections, and UDP or other packets with a new pair of
    /// addresses and ports.
    pub connections_per_s: u64,
}

/// The reason for which a frame was dropped.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DenyReason {
    /// The destination is denied.
    Destination,
    /// The port is in [`EgressSpec::deny_ports`].
    Port,
    /// [`NetLimits::connections_per_s`] is exceeded.
    Rate,
    /// The source is not the guest's address.
    Source,
    /// The protocol is neither ARP nor IPv4.
    Protocol,
    /// A header is truncated, has IP options, or contradicts another one.
    Malformed,
}

/// The protocol of a dropped frame.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// ARP.
    Arp,
    /// An IPv4 packet with this protocol number.
    Ip(u8),
    /// Another EtherType.
    EtherType(u16),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arp => f.write_str("arp"),
            Self::Ip(1) => f.write_str("icmp"),
            Self::Ip(6) => f.write_str("tcp"),
            Self::Ip(17) => f.write_str("udp"),
            Self::Ip(number) => write!(f, "ip-{number}"),
            Self::EtherType(0x8100 | 0x88a8) => f.write_str("vlan"),
            Self::EtherType(0x86dd) => f.write_str("ipv6"),
            Self::EtherType(number) => write!(f, "ethertype-{number:#06x}"),
        }
    }
}

/// The common properties of dropped frames.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Denial {
    /// The destination; of ARP the address that was asked for, or a sender that is not the guest. `None` if the frame
    /// has none.
    pub address: Option<IpAddr>,
    /// The destination port of TCP and UDP.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
    /// The first check that the frame did not pass.
    pub reason: DenyReason,
}

/// The number of dropped frames of one kind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeniedCount {
    /// The kind.
    pub denial: Denial,
    /// The number of frames.
    pub times: u64,
}

/// The frames that the device has dropped since the VM was created.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeniedReport {
    /// The first 64 kinds, in the order of their first frame.
    pub counts: Vec<DeniedCount>,
    /// The number of frames of all other kinds.
    pub others: u64,
}
