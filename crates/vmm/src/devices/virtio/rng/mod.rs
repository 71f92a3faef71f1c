//! The entropy device (spec section 5.4).

mod device;
mod metrics;
mod state;

pub use device::Rng;
pub use metrics::RngMetrics;
pub use state::RngState;
