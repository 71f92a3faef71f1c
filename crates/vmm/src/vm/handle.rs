//! Pausing, resuming and saving a VM that the event loop serves.

use std::fs::File;
use std::sync::Arc;

use kvm_ioctls::{VcpuFd, VmFd};

use super::build::Cpu;
use super::first_run::FirstRun;
use super::{Shape, Vm};
use crate::bus::SharedDevice;
use crate::devices::{StateError, vmgenid};
use crate::memory::GuestMemory;
use crate::snapshot::{
    self, DeviceState, Key, MachineState, Origin, Record, SnapshotError, VcpuState, VmState,
    WorkingSet, WorkingSetError,
};
use crate::sync::lock;
use crate::vcpu::Vcpus;

/// A VM, as seen by whoever pauses, resumes and saves it: on the event loop's thread, or any other that
/// alone does so.
#[derive(Clone)]
pub struct VmHandle {
    pub(super) vcpus: Arc<Vcpus>,
    pub(super) vm: Arc<VmFd>,
    pub(super) cpu: Arc<Cpu>,
    pub(super) devices: Vec<SharedDevice>,
    memory: GuestMemory,
    shape: Shape,
    pub(super) first_run: FirstRun,
}

/// A VM that was saved.
#[derive(Debug)]
pub struct Saved {
    /// The record.
    pub record: Record,
    /// The memory: a memfd that nobody can write to any more.
    pub memory: File,
}

impl VmHandle {
    pub(super) fn new(vm: &Vm, vcpus: Arc<Vcpus>) -> Self {
        Self {
            vcpus,
            vm: vm.vm.clone(),
            cpu: vm.cpu.clone(),
            devices: vm.devices.clone(),
            memory: vm.memory.clone(),
            shape: vm.shape,
            first_run: vm.first_run.clone(),
        }
    }

    /// Whether the vCPUs were last let run, not paused.
    pub fn is_running(&self) -> bool {
        self.vcpus.is_running()
    }

    /// Stops the vCPUs between two instructions, then the devices.
    pub fn pause(&self) {
        self.vcpus.pause();
        for device in &self.devices {
            lock(device).pause();
        }
    }

    /// Lets the devices and then the vCPUs go on. Fails if the time at which the VM was saved cannot be set.
    pub fn resume(&self) -> Result<(), SnapshotError> {
        self.first_run.prepare(&self.vcpus, &self.vm)?;
        for device in &self.devices {
            lock(device).resume();
        }
        self.vcpus.resume();
        Ok(())
    }

    /// Saves the VM, which has to be paused. The snapshot's memory is a copy; the VM may resume afterwards.
    pub fn save(&self, origin: &Origin) -> Result<Saved, SnapshotError> {
        if self.vcpus.is_running() {
            return Err(SnapshotError::NotPaused);
        }
        let state = MachineState {
            vcpus: self.vcpu_states()?,
            vm: VmState::save(&self.vm)?,
            devices: self.device_states()?,
        };
        // Last: reading a vCPU's state may write to the memory, such as that it was preempted.
        let memory = snapshot::freeze(&self.memory)?;
        let record = Record {
            key: self.key(origin),
            memory_digest: snapshot::memory_digest(&memory)?,
            state,
        };
        Ok(Saved { record, memory })
    }

    /// The pages that a fork has touched so far; `pagemap` is this process's own `/proc/PID/pagemap`.
    pub fn working_set(&self, pagemap: &File) -> Result<WorkingSet, SnapshotError> {
        Ok(WorkingSet::of(&self.memory, pagemap)?)
    }

    /// Maps the pages that another fork only read ([`WorkingSet::map_read`]). The VM is paused.
    pub fn map_read(&self, set: &WorkingSet) -> Result<(), SnapshotError> {
        self.on_first_vcpu(|vcpu| set.map_read(&self.memory, vcpu))
    }

    /// Copies and maps the pages that another fork wrote to ([`WorkingSet::copy_written`]). The VM is paused.
    pub fn copy_written(&self, set: &WorkingSet) -> Result<(), SnapshotError> {
        self.on_first_vcpu(|vcpu| set.copy_written(&self.memory, vcpu))
    }

    /// All vCPUs share one set of second-stage page tables, so that one vCPU maps for all.
    fn on_first_vcpu(
        &self,
        run: impl Fn(&VcpuFd) -> Result<(), WorkingSetError>,
    ) -> Result<(), SnapshotError> {
        self.vcpus.with_each(|index, vcpu| match index {
            0 => Ok(run(vcpu)?),
            _ => Ok(()),
        })
    }

    pub(super) fn vcpu_states(&self) -> Result<Vec<VcpuState>, SnapshotError> {
        let mut states = Vec::with_capacity(self.shape.vcpus.into());
        self.vcpus.with_each(|_, vcpu| {
            states.push(VcpuState::save(vcpu, &self.cpu.context)?);
            Ok::<_, SnapshotError>(())
        })?;
        Ok(states)
    }

    pub(super) fn device_states(&self) -> Result<Vec<DeviceState>, SnapshotError> {
        let save = |device: &SharedDevice| {
            let device = lock(device);
            Ok(DeviceState {
                name: device.name().to_owned(),
                state: device.save()?.to_string(),
            })
        };
        self.devices.iter().map(save).collect()
    }

    /// Gives the devices the states that they or their like had, in the same order.
    pub(super) fn restore_devices(&self, states: &[DeviceState]) -> Result<(), SnapshotError> {
        for (device, saved) in self.devices.iter().zip(states) {
            let mut device = lock(device);
            let name = device.name();
            let format = |source| StateError::Format {
                device: name,
                source,
            };
            device.restore(&serde_json::from_str(&saved.state).map_err(format)?)?;
        }
        Ok(())
    }

    pub(super) fn key(&self, origin: &Origin) -> Key {
        let devices = self.devices.iter();
        let names = devices.map(|device| lock(device).name().to_owned());
        // It has no state, and a guest that was told of it has its interrupt.
        let names = names.chain([vmgenid::NAME.to_owned()]);
        Key::new(
            self.shape,
            origin.clone(),
            self.cpu.key.clone(),
            names.collect(),
        )
    }
}
