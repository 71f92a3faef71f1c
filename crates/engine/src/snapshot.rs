//! A saved VM, and the template that is made of it.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use cloude_vmm::control::Origin;

use crate::files::allocated_bytes;
use crate::machine::MachineShape;

/// A saved VM: guest memory and VM state, both immutable. Clones share the files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Guest memory: a sealed memfd, or a file of the disk store.
    pub memory: Arc<File>,
    /// The VM state: CPU, KVM and device state as the worker wrote it.
    pub state: Arc<File>,
    /// The kernel and initramfs that the VM was booted from.
    pub origin: Origin,
}

/// The pages that forks of a template touch, found with a probe program.
#[derive(Debug)]
pub struct WorkingSet {
    /// The page list, in the worker's format.
    pub list: File,
    /// Pages of 4 KiB that a fork writes. The worker copies them when the fork is resumed.
    pub written_pages: u64,
    /// Pages of 4 KiB that a fork only reads. The worker maps them, and they stay shared with the template.
    pub read_pages: u64,
}

/// A warmed snapshot that executions are forked from.
#[derive(Debug)]
pub struct Template {
    /// Guest memory and VM state.
    pub snapshot: Snapshot,
    /// The token that the saved agent accepts until an identity replaces it.
    pub token: String,
    /// The machine configuration of its forks.
    pub shape: MachineShape,
    /// Read from the disk store instead of built by this process. Its guest memory is page cache, which the
    /// host's kernel can reclaim.
    pub loaded: bool,
    /// Set once a probe program ran in a fork.
    pub working_set: OnceLock<WorkingSet>,
}

impl Template {
    /// Allocated bytes of guest memory. Pages that the guest never wrote are holes.
    pub fn resident_bytes(&self) -> u64 {
        let metadata = self.snapshot.memory.metadata();
        metadata.map_or(0, |metadata| allocated_bytes(&metadata))
    }

    /// Bytes that the host cannot reclaim: a memfd's are, a disk file's are not.
    pub fn held_bytes(&self) -> u64 {
        if self.loaded {
            0
        } else {
            self.resident_bytes()
        }
    }
}
