//! Restores guest time (TSC, TSC deadline, kvmclock) just before a fork first runs.

use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use crate::snapshot::{SnapshotError, VmState};
use crate::sync::lock;
use crate::vcpu::Vcpus;

/// The saved time that a fork continues from; empty once the fork has run. Clones share it.
///
/// Guest time does not advance while a fork waits. Otherwise every periodic timer of the guest would fire
/// at its first instruction.
#[derive(Clone, Default)]
pub(super) struct TimeRestore(Arc<Mutex<Option<Arc<VmState>>>>);

impl TimeRestore {
    /// Schedules the time of `state`, which was just restored, for the first run.
    pub fn schedule(&self, state: Arc<VmState>) {
        *lock(&self.0) = Some(state);
    }

    /// Sets the time before the vCPUs run for the first time. Does nothing once it has succeeded; after an
    /// error the next call tries again, so that the guest never runs with another time.
    pub fn apply(&self, vcpus: &Vcpus, vm: &VmFd) -> Result<(), SnapshotError> {
        let mut pending = lock(&self.0);
        let Some(saved) = pending.as_ref().map(|vm_state| &vm_state.state) else {
            return Ok(());
        };
        vcpus.with_each(|index, vcpu| saved.vcpus[index].restore_time(index, vcpu))?;
        saved.vm.restore_time(vm)?;
        *pending = None;
        Ok(())
    }
}
