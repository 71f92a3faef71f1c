//! A VM's first run: by then it has the time at which it was saved.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::VmFd;

use crate::snapshot::{Record, SnapshotError};
use crate::vcpu::Vcpus;

/// The record whose time a VM is to go on from, until it has run. Clones share it.
///
/// Time stands still for a VM until it runs, so that nothing is due then that came due while it waited.
#[derive(Clone, Default)]
pub(super) struct FirstRun(Arc<Mutex<Option<Arc<Record>>>>);

impl FirstRun {
    /// The VM has taken this state.
    pub fn set(&self, record: Arc<Record>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// Before the vCPUs run, for the first time or again: nothing is done again.
    pub fn prepare(&self, vcpus: &Vcpus, vm: &VmFd) -> Result<(), SnapshotError> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(record) = record else {
            return Ok(());
        };
        let saved = &record.state;
        vcpus.with_each(|index, vcpu| saved.vcpus[index].restore_time(index, vcpu))?;
        saved.vm.restore_time(vm)
    }
}
