//! A snapshot to restore forks from: its decoded VM state and its memory file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::error::SnapshotError;
use super::memory::{self, MemoryFileError};
use super::vm_state::VmState;

/// A snapshot that is ready to be restored. Clones share it.
#[derive(Clone, Debug)]
pub struct Template {
    vm_state: Arc<VmState>,
    memory: Arc<File>,
}

/// The most bytes that are read of a VM state file: more than eight vCPUs and all devices need.
const MAX_STATE_FILE: u64 = 16 << 20;

impl Template {
    /// Decodes the VM state in `vm_state` and checks the size of `memory`, a sealed memfd or a file that no process
    /// writes to. The content of the memory is checked by [`Template::verify_memory`] only.
    pub fn new(vm_state: &[u8], memory: File) -> Result<Self, SnapshotError> {
        let vm_state = VmState::decode(vm_state)?;
        let need = vm_state.key.memory_mib << 20;
        let have = memory.metadata().map_err(MemoryFileError::Read)?.len();
        if have != need {
            return Err(MemoryFileError::Size { have, need }.into());
        }
        Ok(Self {
            vm_state: Arc::new(vm_state),
            memory: Arc::new(memory),
        })
    }

    /// [`Template::new`] with the VM state in a file or memfd.
    pub fn open(vm_state: &File, memory: File) -> Result<Self, SnapshotError> {
        let read = SnapshotError::host("read the VM state file");
        let len = vm_state
            .metadata()
            .map_err(&read)?
            .len()
            .min(MAX_STATE_FILE);
        let mut bytes = vec![0; len as usize];
        vm_state.read_exact_at(&mut bytes, 0).map_err(&read)?;
        Self::new(&bytes, memory)
    }

    /// Compares the memory file with the digest in the VM state. Call it once for a file from a disk, before the first
    /// restore. It reads the whole file: about a second per GiB of data.
    pub fn verify_memory(&self) -> Result<(), MemoryFileError> {
        if memory::memory_digest(&self.memory)? == self.vm_state.memory_digest {
            Ok(())
        } else {
            Err(MemoryFileError::Damaged)
        }
    }

    /// The VM state.
    pub fn vm_state(&self) -> &VmState {
        &self.vm_state
    }

    pub(crate) fn shared_state(&self) -> Arc<VmState> {
        Arc::clone(&self.vm_state)
    }

    /// The memory file.
    pub fn memory(&self) -> &File {
        &self.memory
    }
}
