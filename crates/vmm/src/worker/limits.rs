//! Resource limits that depend on the VM.

use super::error::WorkerError;
use crate::jail;

/// Bytes of a file besides guest memory: the VM state or a working set.
const STATE: u64 = 64 << 20;

/// Bounds the files that the worker makes: the largest is a snapshot's memory.
pub(super) fn of_vm(memory_mib: u64) -> Result<(), WorkerError> {
    let bytes = memory_mib.saturating_mul(1 << 20).saturating_add(STATE);
    jail::limit_files(bytes).map_err(WorkerError::Jail)
}
