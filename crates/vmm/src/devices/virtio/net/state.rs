//! The device's state in a snapshot.

use serde::{Deserialize, Serialize};

/// The configuration space that the guest has read. TAP and MAC address belong to the restoring device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetState {
    /// The MAC address of the saved device. A restored device keeps its own and drops frames from any other
    /// source, so the guest's interface must be given the new address.
    pub mac: [u8; 6],
    /// The MTU of the saved device, in bytes. A restored device must have the same.
    pub mtu: u16,
}
