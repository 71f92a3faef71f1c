//! The egress filter: decides for each frame of the guest whether it is sent.
//!
//! It reads the copy of the headers that is sent, so that the guest cannot change them after the check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::flows::Flow;
use super::packet::{
    Arp, ETHERTYPE_ARP, ETHERTYPE_IPV4, INSPECTED, Ipv4, Malformed, TCP, UDP, ethernet,
};
use super::spec::{Denial, DenyReason, EgressSpec, Protocol};
use super::virtio_header::VirtioHeader;

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_IPV6: u16 = 0x86dd;
const DNS_PORT: u16 = 53;

/// The decision about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it. ARP, and answers to the host, belong to no flow.
    Pass(Option<Flow>),
    /// Drop and count it.
    Deny(Denial),
    /// Drop it. Not counted: every kernel with IPv6 sends such frames by itself.
    Ignore,
}

/// A compiled [`EgressSpec`].
#[derive(Debug)]
pub(super) struct Filter {
    mac: [u8; 6],
    spec: EgressSpec,
    never: Ranges,
    allow: Ranges,
    deny: Ranges,
}

/// Disjoint address ranges, ascending.
#[derive(Debug)]
struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    fn new(networks: &[Ipv4Net]) -> Self {
        let aggregated = Ipv4Net::aggregate(&networks.to_vec());
        let mut ranges: Vec<_> = aggregated
            .iter()
            .map(|network| (network.network().into(), network.broadcast().into()))
            .collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

impl Filter {
    pub fn new(mac: [u8; 6], spec: EgressSpec) -> Self {
        Self {
            mac,
            never: Ranges::new(&spec.never),
            allow: Ranges::new(&spec.allow),
            deny: Ranges::new(&spec.deny),
            spec,
        }
    }

    /// Checks a frame of `len` bytes, of which `frame` holds at least the first [`INSPECTED`], or all.
    pub fn check(&self, header: &VirtioHeader, frame: &[u8], len: usize) -> Verdict {
        debug_assert!(frame.len() >= len.min(INSPECTED));
        let (to, from, ether_type) = ethernet(frame);
        match ether_type {
            ETHERTYPE_ARP => self.check_arp(header, frame, to, from),
            ETHERTYPE_IPV4 => self.check_ipv4(header, frame, len, to, from),
            ETHERTYPE_IPV6 if frame.get(38) == Some(&0xff) => Verdict::Ignore,
            other => Verdict::Deny(Denial {
                address: (other == ETHERTYPE_IPV6)
                    .then(|| ipv6_destination(frame))
                    .flatten()
                    .map(IpAddr::V6),
                port: None,
                protocol: Protocol::EtherType(other),
                reason: DenyReason::Protocol,
            }),
        }
    }

    fn check_arp(
        &self,
        header: &VirtioHeader,
        frame: &[u8],
        to: [u8; 6],
        from: [u8; 6],
    ) -> Verdict {
        let denied = |address: Option<Ipv4Addr>, reason| {
            Verdict::Deny(Denial {
                address: address.map(IpAddr::V4),
                port: None,
                protocol: Protocol::Arp,
                reason,
            })
        };
        let arp = match Arp::parse(frame) {
            Ok(arp) if header.is_plain() => arp,
            _ => return denied(None, DenyReason::Malformed),
        };
        if from != self.mac || arp.sender_mac != self.mac || arp.sender != self.spec.address {
            return denied(Some(arp.sender), DenyReason::Source);
        }
        let target = arp.target == self.spec.gateway || arp.target == self.spec.address;
        if !target || !(to == BROADCAST || to == self.spec.gateway_mac) {
            return denied(Some(arp.target), DenyReason::Destination);
        }
        Verdict::Pass(None)
    }

    fn check_ipv4(
        &self,
        header: &VirtioHeader,
        frame: &[u8],
        len: usize,
        to: [u8; 6],
        from: [u8; 6],
    ) -> Verdict {
        let packet = match Ipv4::parse(frame, len) {
            Ok(packet) => packet,
            Err(Malformed) => {
                return Verdict::Deny(Denial {
                    address: None,
                    port: None,
                    protocol: Protocol::EtherType(ETHERTYPE_IPV4),
                    reason: DenyReason::Malformed,
                });
            }
        };
        let denied = |reason| {
            Verdict::Deny(Denial {
                address: Some(packet.destination.into()),
                port: packet.ports.map(|(_, destination)| destination),
                protocol: Protocol::Ip(packet.protocol),
                reason,
            })
        };
        if from != self.mac || packet.source != self.spec.address {
            return denied(DenyReason::Source);
        }
        if !header.fits(packet.protocol, packet.fragment) {
            return denied(DenyReason::Malformed);
        }
        if let Err(reason) = self.check_destination(&packet) {
            return denied(reason);
        }
        if to != self.spec.gateway_mac {
            return denied(DenyReason::Destination);
        }
        if packet.destination == self.spec.gateway {
            return Verdict::Pass(None);
        }
        let (source_port, destination_port) = packet.ports.unwrap_or_default();
        Verdict::Pass(Some(Flow {
            destination: packet.destination.into(),
            protocol: packet.protocol,
            source_port,
            destination_port,
        }))
    }

    /// The rules of [`EgressSpec`].
    fn check_destination(&self, packet: &Ipv4) -> Result<(), DenyReason> {
        let destination = packet.destination;
        if destination == self.spec.gateway && packet.answers && !packet.fragment {
            return Ok(());
        }
        if !self.spec.outbound || self.never.contains(destination) {
            return Err(DenyReason::Destination);
        }
        let port = packet.ports.map(|(_, destination)| destination);
        let has_port = matches!(packet.protocol, TCP | UDP);
        if has_port && port.is_some_and(|port| self.spec.deny_ports.contains(&port)) {
            return Err(DenyReason::Port);
        }
        if self.allow.contains(destination) || !self.deny.contains(destination) {
            return Ok(());
        }
        // A later fragment has no port.
        if has_port && port == Some(DNS_PORT) && self.spec.dns.contains(&destination) {
            return Ok(());
        }
        Err(DenyReason::Destination)
    }
}

fn ipv6_destination(frame: &[u8]) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = frame.get(38..54)?.try_into().ok()?;
    Some(bytes.into())
}
