//! A VM created before it is known which snapshot it will restore.

use super::error::VmError;
use super::handle::VmHandle;
use super::machine::{MemoryKind, Vm};
use crate::devices::vmgenid;
use crate::snapshot::{
    CallCount, Key, KvmVmState, Origin, SnapshotError, Template, VcpuState, VmState, map_private,
};

/// A VM without a guest: interrupt controllers, vCPUs with their threads, devices with their eventfds, and
/// memslots over reserved address space.
///
/// The slow part of creating a VM is done: registering a memslot waits for a grace period of the kernel (some
/// milliseconds). [`BlankVm::restore`] registers no memslot and closes no descriptor.
pub struct BlankVm {
    vm: Vm,
    handle: VmHandle,
    /// State of the vCPUs as created; a restore skips each part that is equal.
    blank_vcpus: Vec<VcpuState>,
    /// State of the interrupt controllers as created; a restore skips each that is equal.
    blank_vm: KvmVmState,
    key: Key,
}

impl BlankVm {
    /// Starts the vCPU threads of `vm`, which [`Vm::reserved`] made and which has all its devices.
    pub fn new(mut vm: Vm) -> Result<Self, VmError> {
        if vm.memory_kind != MemoryKind::Reserved {
            return Err(VmError::Started);
        }
        let vcpus = vm.spawn_vcpus()?;
        let handle = vm.handle_of(vcpus);
        Ok(Self {
            blank_vcpus: handle.vcpu_states()?,
            blank_vm: KvmVmState::save(&handle.vm)?,
            key: handle.key(&Origin::default()),
            handle,
            vm,
        })
    }

    /// Restores `template`: the VM is paused, with the template's memory mapped copy-on-write. [`Vm::resume`]
    /// lets it run.
    ///
    /// `origin` is the software that the template must be made from. After an error the blank VM is gone.
    ///
    /// The steps follow `docs/snapshots.md`, "The order of a restore".
    pub fn restore(
        mut self,
        template: &Template,
        origin: &Origin,
    ) -> Result<(Vm, CallCount), SnapshotError> {
        let vm_state = template.vm_state();
        self.check(vm_state, origin)?;
        let mut calls = CallCount::default();
        let state = &vm_state.state;
        calls.memory += map_private(&self.vm.memory, template.memory())?;
        self.vm.memory_kind = MemoryKind::Private;
        self.handle.vcpus.with_each(|index, vcpu| {
            let blank = &self.blank_vcpus[index];
            state.vcpus[index].restore(vcpu, blank, &self.handle.cpu.context, &mut calls)
        })?;
        state
            .vm
            .restore(&self.handle.vm, &self.blank_vm, &mut calls)?;
        self.handle.restore_devices(&state.devices)?;
        // Last: once the guest knows that it is a fork, nothing may fail that would make it another one.
        vmgenid::write_fresh(&self.vm.memory)?;
        calls.ioctls += vmgenid::notify(&self.handle.vm)?;
        self.handle.time_restore.schedule(template.shared_state());
        Ok((self.vm, calls))
    }

    fn check(&mut self, vm_state: &VmState, origin: &Origin) -> Result<(), SnapshotError> {
        self.key.origin = origin.clone();
        vm_state.key.check(&self.key)?;
        let complete = |what, have, need| match have == need {
            true => Ok(()),
            false => Err(SnapshotError::Incomplete { what, have, need }),
        };
        let state = &vm_state.state;
        complete("vCPUs", state.vcpus.len(), self.blank_vcpus.len())?;
        complete("devices", state.devices.len(), self.handle.devices.len())
    }

    /// The VM, to make its event loop ahead of the restore.
    pub fn vm_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// The handle of the VM that the restore will return.
    pub fn handle(&self) -> VmHandle {
        self.handle.clone()
    }
}
