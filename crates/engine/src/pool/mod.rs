//! Templates in memory, and paused forks that wait for executions.
//!
//! [`policy`] computes how many forks each template should have, [`forks`] is the bookkeeping, and [`owner`]
//! runs the tasks that build, fork and stop.

mod builds;
mod entry;
mod evict;
mod forks;
mod interest;
mod lease;
mod list;
mod owner;
mod plan;
mod policy;
pub mod refill;
mod status;
mod templates;

pub use owner::{Pool, PoolParts};
pub use status::PoolCounts;
