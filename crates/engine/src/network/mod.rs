//! The network of VMs: a bridge, a TAP for each VM, NAT and isolation.

mod addresses;
mod attached;
mod bridge;
mod clean_up;
mod error;
mod firewall;
mod forwarding;
mod links;
mod mark;
mod nft;
mod place;
mod policy;
mod ports;
mod provider;
mod report;
pub mod tap;
mod watcher;

pub use addresses::{Exhausted, Range, RangeError, validate_range};
pub use attached::{Attached, release};
pub use bridge::{Attachment, Network, tap_prefix};
pub use clean_up::clean_up;
pub use error::NetworkError;
pub use place::check;
pub use policy::DENIED;
pub use provider::{NetworkProvider, Reclaim};
pub use report::network_report;
