//! What is counted.

use serde::{Deserialize, Serialize};

/// Counters since construction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngMetrics {
    /// Buffers filled.
    pub buffers: u64,
    /// Bytes given.
    pub bytes: u64,
    /// Times that the bound on one turn was reached.
    pub turns_cut: u64,
    /// Failed calls of `getrandom`; the buffer went back empty.
    pub failures: u64,
}
