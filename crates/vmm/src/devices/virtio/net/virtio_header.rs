//! `struct virtio_net_hdr_v1` of a frame that the guest sends (spec section 5.1.6).

use super::packet::{ETHERNET_HEADER_SIZE, TCP, UDP};

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
/// A bit of `gso_type`: the segment has the ECN bit set.
const GSO_ECN: u8 = 0x80;

/// Offset of the payload of an IPv4 packet without options.
const TRANSPORT: u16 = ETHERNET_HEADER_SIZE as u16 + 20;
/// Offsets of the checksums in the headers of TCP and UDP.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// The offloads that a frame asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VirtioHeader {
    /// Reads the first ten bytes.
    pub fn parse(bytes: &[u8; 12]) -> Self {
        let word = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// True if the frame asks for no offload.
    pub fn is_plain(&self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }

    /// True if the offloads are those of the packet's own protocol.
    ///
    /// The host's kernel writes a checksum at `csum_start + csum_offset`, wherever that is, and after its firewall has
    /// read the packet. An offset into the IP header would change the destination.
    pub fn fits(&self, protocol: u8, fragment: bool) -> bool {
        if self.is_plain() {
            return true;
        }
        if fragment {
            return false;
        }
        let checksum = match protocol {
            TCP => TCP_CHECKSUM,
            UDP => UDP_CHECKSUM,
            _ => return false,
        };
        let needs = self.flags & NEEDS_CSUM != 0
            && self.csum_start == TRANSPORT
            && self.csum_offset == checksum;
        let segments = match self.gso_type & !GSO_ECN {
            GSO_NONE => self.gso_type == GSO_NONE,
            GSO_TCPV4 => protocol == TCP && self.gso_size > 0,
            _ => false,
        };
        needs && segments
    }

    /// The number of packets that a frame of `len` bytes becomes on the wire, about.
    pub fn packets(&self, len: usize) -> u64 {
        if self.gso_type == GSO_NONE || self.gso_size == 0 {
            return 1;
        }
        (len as u64).div_ceil(u64::from(self.gso_size)).max(1)
    }
}
