//! The network device (spec section 5.1) on a TAP.
//!
//! The device itself confines the guest: the egress filter ([`EgressSpec`]) and the limits ([`NetLimits`]) need no
//! firewall of the host, and no change of the host's rules removes them.

mod bucket;
mod denied;
mod device;
mod filter;
mod flows;
mod limiter;
mod packet;
mod rx;
mod spec;
mod state;
mod tap;
#[cfg(test)]
mod tests;
mod tx;
mod virtio_header;

pub use device::{Net, NetConfig, NetError};
use packet::ETHERNET_HEADER_SIZE;
pub use spec::{Denial, DeniedCount, DeniedReport, DenyReason, EgressSpec, NetLimits, Protocol};
use state::NetState;

/// Size of `struct virtio_net_hdr_v1`, which every frame starts with (spec section 5.1.6).
const HEADER_SIZE: usize = 12;
/// The largest frame in bytes: an unsegmented packet of 64 KiB with Ethernet header and VLAN tag.
const MAX_FRAME: usize = HEADER_SIZE + ETHERNET_HEADER_SIZE + 4 + 65535;

const RXQ: usize = 0;
const TXQ: usize = 1;
