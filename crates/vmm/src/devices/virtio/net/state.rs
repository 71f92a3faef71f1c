//! What a snapshot keeps.

use serde::{Deserialize, Serialize};

/// The network device's state: what the guest was told. The TAP and the address are the new owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    /// The address that the guest was told. A device that takes the state keeps its own, and drops what
    /// the guest sends from any other: the guest has to be told.
    pub mac: [u8; 6],
    /// The MTU that the guest was told.
    pub mtu: u16,
}
