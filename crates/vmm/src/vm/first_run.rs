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
    /// The VM has taken this state.
    pub fn set(&self, record: Arc<Record>) {
        *lock(&self.0) = Some(record);
    }

    /// Call before the vCPUs run. Does nothing once it has succeeded.
    pub fn prepare(&self, vcpus: &Vcpus, vm: &VmFd) -> Result<(), SnapshotError> {
        let mut record = lock(&self.0);
        if let Some(record) = &*record {
            let saved = &record.state;
            vcpus.with_each(|index, vcpu| saved.vcpus[index].restore_time(index, vcpu))?;
            saved.vm.restore_time(vm)?;
        }
        *record = None;
        Ok(())
    }
}
