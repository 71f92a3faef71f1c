//! Pausing, resuming and saving a VM that the event loop serves.

use std::fs::File;
use std::sync::Arc;

use kvm_ioctls::{VcpuFd, VmFd};

use super::build::Cpu;
use super::shape::MachineShape;
use super::time_restore::TimeRestore;
use crate::bus::SharedDevice;
use crate::devices::{StateError, vmgenid};
use crate::memory::GuestMemory;
use crate::snapshot::{
    self, DeviceState, Key, KvmVmState, MachineState, Origin, SnapshotError, VcpuState, VmState,
    WorkingSet, WorkingSetError,
};
use crate::sync::lock;
use crate::vcpu::Vcpus;

/// Pauses, resumes and saves a VM. One thread at a time may use the handle and its clones; the event loop's
/// thread may.
#[derive(Clone)]
pub struct VmHandle {
    pub(super) vcpus: Arc<Vcpus>,
    pub(super) vm: Arc<VmFd>,
    pub(super) cpu: Arc<Cpu>,
    pub(super) devices: Vec<SharedDevice>,
    pub(super) memory: GuestMemory,
    pub(super) shape: MachineShape,
    pub(super) time_restore: TimeRestore,
}

/// The two parts of a new snapshot.
#[derive(Debug)]
pub struct Saved {
    /// CPU, interrupt controllers and devices.
    pub vm_state: VmState,
    /// Guest memory: a memfd sealed against writing and resizing.
    pub memory: File,
}

impl VmHandle {
    /// True after [`VmHandle::resume`], false after [`VmHandle::pause`].
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

    /// Starts the devices, then the vCPUs. The first time after a restore it sets guest time before, which is
    /// the only thing that can fail.
    pub fn resume(&self) -> Result<(), SnapshotError> {
        self.time_restore.apply(&self.vcpus, &self.vm)?;
        for device in &self.devices {
            lock(device).resume();
        }
        self.vcpus.resume();
        Ok(())
    }

    /// Saves the paused VM. The snapshot's memory is a copy; the VM may resume afterwards.
    pub fn save(&self, origin: &Origin) -> Result<Saved, SnapshotError> {
        if self.vcpus.is_running() {
            return Err(SnapshotError::NotPaused);
        }
        let state = MachineState {
            vcpus: self.vcpu_states()?,
            vm: KvmVmState::save(&self.vm)?,
            devices: self.device_states()?,
        };
        // Memory comes last: KVM may write to it while a vCPU's state is read (KVM_VCPU_PREEMPTED).
        let memory = snapshot::freeze(&self.memory)?;
        let vm_state = VmState {
            key: self.key(origin),
            memory_digest: snapshot::memory_digest(&memory)?,
            state,
        };
        Ok(Saved { vm_state, memory })
    }

    /// The pages that a fork has touched so far. `pagemap` is the `/proc/PID/pagemap` of this process.
    pub fn working_set(&self, pagemap: &File) -> Result<WorkingSet, SnapshotError> {
        Ok(WorkingSet::of(&self.memory, pagemap)?)
    }

    /// Maps the pages that another fork only read ([`WorkingSet::map_read`]). The VM must be paused.
    pub fn map_read(&self, set: &WorkingSet) -> Result<(), SnapshotError> {
        self.on_first_vcpu(|vcpu| set.map_read(&self.memory, vcpu))
    }

    /// Copies and maps the pages that another fork wrote to ([`WorkingSet::copy_written`]). The VM must be
    /// paused.
    pub fn copy_written(&self, set: &WorkingSet) -> Result<(), SnapshotError> {
        self.on_first_vcpu(|vcpu| set.copy_written(&self.memory, vcpu))
    }

    /// All vCPUs share one set of second-stage page tables, so KVM_PRE_FAULT_MEMORY on one maps for all.
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

    fn device_states(&self) -> Result<Vec<DeviceState>, SnapshotError> {
        let save = |device: &SharedDevice| {
            let device = lock(device);
            Ok(DeviceState {
                name: device.name().to_owned(),
                state: device.save()?,
            })
        };
        self.devices.iter().map(save).collect()
    }

    /// Restores the devices; `states` are in the order in which the devices were attached.
    pub(super) fn restore_devices(&self, states: &[DeviceState]) -> Result<(), SnapshotError> {
        for (device, saved) in self.devices.iter().zip(states) {
            let mut device = lock(device);
            if device.name() != saved.name {
                let what = format!("it belongs to device {}", saved.name);
                return Err(StateError::invalid(device.name(), what).into());
            }
            device.restore(&saved.state)?;
        }
        Ok(())
    }

    pub(super) fn key(&self, origin: &Origin) -> Key {
        let devices = self.devices.iter();
        let names = devices.map(|device| lock(device).name().to_owned());
        // It has no state; its interrupt and DSDT nodes are part of the guest.
        let names = names.chain([vmgenid::NAME.to_owned()]);
        Key::new(
            self.shape,
            origin.clone(),
            self.cpu.key.clone(),
            names.collect(),
        )
    }
}
