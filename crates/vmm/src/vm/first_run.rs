//! Restores guest time (TSC, TSC deadline, kvmclock) just before a fork first runs.

use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use crate::snapshot::{Record, SnapshotError};
use crate::sync::lock;
use crate::vcpu::Vcpus;

/// The record whose time a fork continues from, until the fork has run. Clones share it.
///
/// Guest time does not advance while a fork waits. Otherwise every periodic timer of the guest would fire
/// at its first instruction.
#[derive(Clone, Default)]
pub(super) struct FirstRun(Arc<Mutex<Option<Arc<Record>>>>);

impl FirstRun {
    /// The VM has been given this state.
    pub fn set(&self, record: Arc<Record>) {
        *lock(&self.0) = Some(record);
    }

    /// Sets the time before the vCPUs run for the first time. After a success later calls do nothing; after an
    /// error the next call sets it again, so that the guest never runs with another time.
    pub fn prepare(&self, vcpus: &Vcpus, vm: &VmFd) -> Result<(), SnapshotError> {
        let mut record = lock(&self.0);
        let Some(saved) = record.as_ref().map(|record| &record.state) else {
            return Ok(());
        };
        vcpus.with_each(|index, vcpu| saved.vcpus[index].restore_time(index, vcpu))?;
        saved.vm.restore_time(vm)?;
        *record = None;
        Ok(())
    }
}
