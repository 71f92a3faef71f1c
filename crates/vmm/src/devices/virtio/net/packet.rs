//! The headers of a frame that the egress filter reads.

use std::net::Ipv4Addr;

/// Size of destination, source and type of an Ethernet frame.
pub(super) const ETHERNET_HEADER_SIZE: usize = 14;
/// Size of an IPv4 header without options.
const IPV4_HEADER_SIZE: usize = 20;
/// Size of a TCP header without options.
const TCP_HEADER_SIZE: usize = 20;
const UDP_HEADER_SIZE: usize = 8;
/// Size of an ARP packet for IPv4 over Ethernet (RFC 826).
const ARP_SIZE: usize = 28;

/// The bytes at the start of a frame that decide about it.
pub(super) const INSPECTED: usize = ETHERNET_HEADER_SIZE + IPV4_HEADER_SIZE + TCP_HEADER_SIZE;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// SCTP and UDP-Lite have their ports where TCP and UDP have them.
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    pub sender_mac: [u8; 6],
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

/// An IPv4 packet without options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    /// Offset and MF are not both 0.
    pub fragment: bool,
    /// The first byte of the payload is in this packet.
    pub first: bool,
    /// Source and destination port of a first fragment of a protocol with ports.
    pub ports: Option<(u16, u16)>,
    /// A TCP segment that answers another one: ACK or RST, and not SYN alone.
    pub answers: bool,
}

/// A header that is truncated, has options, or contradicts another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// True if source and destination port are the first four bytes of the protocol's header.
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | UDP_LITE)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn ipv4(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn mac(bytes: &[u8], at: usize) -> [u8; 6] {
    let mut mac = [0; 6];
    mac.copy_from_slice(&bytes[at..at + 6]);
    mac
}

/// The destination MAC, the source MAC and the EtherType. `frame` has at least [`ETHERNET_HEADER_SIZE`] bytes.
pub(super) fn ethernet(frame: &[u8]) -> ([u8; 6], [u8; 6], u16) {
    (mac(frame, 0), mac(frame, 6), word(frame, 12))
}

impl Arp {
    /// Reads a request or a reply. `frame` starts with the Ethernet header.
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let arp = &frame[ETHERNET_HEADER_SIZE..];
        // Hardware type Ethernet, protocol IPv4, address sizes 6 and 4.
        let ethernet_ipv4 = [0, 1, 0x08, 0x00, 6, 4];
        if arp.len() < ARP_SIZE || arp[..6] != ethernet_ipv4 || !matches!(word(arp, 6), 1 | 2) {
            return Err(Malformed);
        }
        Ok(Self {
            sender_mac: mac(arp, 8),
            sender: ipv4(arp, 14),
            target: ipv4(arp, 24),
        })
    }
}

impl Ipv4 {
    /// Reads the headers. `frame` holds the first [`INSPECTED`] bytes, or all `len` bytes of a shorter frame.
    ///
    /// Options are refused, because source routing (RFC 791) leads to another destination than the one that was
    /// checked. First fragments hold all of their header, and no second one may overwrite the flags of TCP (RFC 1858).
    pub fn parse(frame: &[u8], len: usize) -> Result<Self, Malformed> {
        let ip = &frame[ETHERNET_HEADER_SIZE..];
        if ip.len() < IPV4_HEADER_SIZE || ip[0] != 0x45 {
            return Err(Malformed);
        }
        let total = usize::from(word(ip, 2));
        if total < IPV4_HEADER_SIZE || total > len - ETHERNET_HEADER_SIZE {
            return Err(Malformed);
        }
        let fragment = word(ip, 6);
        let offset = fragment & 0x1fff;
        let protocol = ip[9];
        // Bytes after the total length are padding.
        let payload = &ip[IPV4_HEADER_SIZE..ip.len().min(total)];
        let mut packet = Self {
            source: ipv4(ip, 12),
            destination: ipv4(ip, 16),
            protocol,
            fragment: fragment & 0x3fff != 0,
            first: offset == 0,
            ports: None,
            answers: false,
        };
        if !packet.first {
            return if protocol == TCP && offset == 1 {
                Err(Malformed)
            } else {
                Ok(packet)
            };
        }
        let least = match protocol {
            TCP => TCP_HEADER_SIZE,
            UDP | UDP_LITE => UDP_HEADER_SIZE,
            SCTP => 12,
            _ => return Ok(packet),
        };
        if payload.len() < least {
            return Err(Malformed);
        }
        packet.ports = Some((word(payload, 0), word(payload, 2)));
        if protocol == TCP {
            let flags = payload[13];
            packet.answers =
                flags & (TCP_ACK | TCP_RST) != 0 && flags & (TCP_SYN | TCP_ACK) != TCP_SYN;
        }
        Ok(packet)
    }
}
