//! The jail of one worker, outside of its process.

use std::io;
use std::sync::Arc;

use cloude_vmm::control::{CgroupEntry, SpawnOptions};
use cloude_vmm::jail::Walls;

use super::cgroup::Cgroups;
use super::leaf::Leaf;
use super::uids::Uid;

/// The walls, the user and the cgroup of one worker. Drop it after the worker is reaped: dropping removes the cgroup, and gives the user to
/// the next worker.
#[derive(Debug, Default)]
pub struct Cell {
    pub(super) walls: Walls,
    /// Declared before the user: what is left in the cgroup is killed first.
    pub(super) leaf: Option<Leaf>,
    pub(super) uid: Option<Uid>,
    /// Keeps the parent of the leaf.
    pub(super) cgroups: Option<Arc<Cgroups>>,
}

impl Cell {
    /// True if the kernel has killed the worker for reaching the memory limit of its cgroup. Reads a file.
    pub fn was_out_of_memory(&self) -> bool {
        self.leaf.as_ref().is_some_and(Leaf::was_out_of_memory)
    }

    /// How to start the worker.
    pub fn options(&self) -> io::Result<SpawnOptions> {
        let entry = self.leaf.as_ref().map(Leaf::entry).transpose()?;
        Ok(SpawnOptions {
            walls: self.walls,
            uid: self.uid.as_ref().map(Uid::number),
            cgroup: entry.unwrap_or_else(CgroupEntry::default),
        })
    }
}
