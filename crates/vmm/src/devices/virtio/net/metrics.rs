//! What is counted.

use serde::{Deserialize, Serialize};

/// Counters since construction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetMetrics {
    /// Frames given to the guest.
    pub rx_frames: u64,
    /// Their bytes, without the virtio header.
    pub rx_bytes: u64,
    /// Frames that did not fit the guest's buffers.
    pub rx_dropped: u64,
    /// Times that a frame had to wait for the guest's buffers.
    pub rx_starved: u64,
    /// Failed reads of the TAP.
    pub rx_errors: u64,
    /// Frames taken from the guest and put on the TAP.
    pub tx_frames: u64,
    /// Their bytes, without the virtio header.
    pub tx_bytes: u64,
    /// Frames whose source address was not the guest's, dropped.
    pub tx_spoofed: u64,
    /// Frames too short or too long to be one, dropped.
    pub tx_malformed: u64,
    /// Frames that the TAP refused, dropped.
    pub tx_errors: u64,
    /// Times that the TAP was full, and the frame waited.
    pub tx_blocked: u64,
}
