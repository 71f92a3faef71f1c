//! What a snapshot keeps.

use serde::{Deserialize, Serialize};

/// The network device's state: what the guest was told. The TAP is the new owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    /// The guest's address. A device made for another cannot take the state: the guest keeps it.
    pub mac: [u8; 6],
    /// The MTU that the guest was told.
    pub mtu: u16,
}
