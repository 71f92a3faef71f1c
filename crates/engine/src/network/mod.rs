//! The network of VMs: a bridge, a TAP for each VM, NAT and isolation.

mod addresses;
mod attached;
mod bridge;
mod error;
mod links;
mod nft;
mod policy;
mod provider;
mod report;
mod sysctl;
pub mod tap;

pub use addresses::{Exhausted, Range, RangeError};
pub use attached::{Attached, release};
pub use bridge::{Attachment, Network, clean_up, tap_prefix};
pub use error::NetworkError;
pub use provider::{NetworkProvider, Reclaim};
pub use report::network_report;
