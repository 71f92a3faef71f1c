//! The jail of every worker, as far as it is made outside the worker: which walls this host can give, a user for each
//! worker, and a cgroup for each worker. [`cloude_vmm::jail`] has the part inside.

mod cell;
mod cgroup;
mod cgroup_v1;
mod cgroup_v2;
mod leaf;
mod prison;
mod uids;

pub use cell::Cell;
pub use leaf::Limits;
pub use prison::{IsolationError, Prison, WallState};
