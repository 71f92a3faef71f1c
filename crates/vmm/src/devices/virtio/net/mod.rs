//! The network device (spec section 5.1) on a TAP.

mod device;
mod rx;
mod state;
mod tap;
#[cfg(test)]
mod tests;
mod tx;

pub use device::{Net, NetConfig, NetError};
use state::NetState;

/// Size of `struct virtio_net_hdr_v1`, which every frame starts with (spec section 5.1.6).
const HEADER_SIZE: usize = 12;
/// Size of destination, source and type of an Ethernet frame.
const ETHERNET_HEADER_SIZE: usize = 14;
/// The largest frame in bytes: an unsegmented packet of 64 KiB with Ethernet header and VLAN tag.
const MAX_FRAME: usize = HEADER_SIZE + ETHERNET_HEADER_SIZE + 4 + 65535;

const RXQ: usize = 0;
const TXQ: usize = 1;
