//! What is counted.

use serde::{Deserialize, Serialize};

/// Counters since construction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockMetrics {
    /// Packets given to the guest.
    pub rx_packets: u64,
    /// Payload bytes given to the guest.
    pub rx_bytes: u64,
    /// Packets taken from the guest.
    pub tx_packets: u64,
    /// Payload bytes taken from the guest.
    pub tx_bytes: u64,
    /// Connections that the guest accepted.
    pub connected: u64,
    /// Connections that the guest refused or did not answer.
    pub connect_failed: u64,
    /// Packets dropped because an address in them was not the guest's or the host's.
    pub misaddressed: u64,
    /// Packets that broke the protocol: answered with a reset.
    pub protocol_errors: u64,
    /// Packets for no connection of ours: answered with a reset.
    pub unknown_connection: u64,
    /// Times that the host's bytes had to wait for the guest's credit.
    pub credit_exhausted: u64,
}
