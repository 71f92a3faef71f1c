//! A VM that is made ahead of demand, for whichever template is wanted then.

use super::{Kind, Vm, VmError, VmHandle};
use crate::devices::vmgenid;
use crate::memory;
use crate::snapshot::{Key, Origin, SnapshotError, Template, Trace, VcpuState, VmState};

/// A VM without a guest: interrupt controllers, vCPUs with their threads, devices with their eventfds,
/// and memslots over reserved address space.
///
/// What is slow about a VM is done: registering a memslot waits for a grace period of the kernel, some
/// milliseconds. [`Shell::take`] registers and closes nothing.
pub struct Shell {
    vm: Vm,
    handle: VmHandle,
    /// What the vCPUs and the VM have already, which a restore need not set.
    vcpus_now: Vec<VcpuState>,
    vm_now: VmState,
    key: Key,
}

impl Shell {
    /// Of a VM that [`Vm::reserved`] made and that has its devices.
    pub fn new(mut vm: Vm) -> Result<Self, VmError> {
        if vm.kind != Kind::Reserved {
            return Err(VmError::Started);
        }
        let vcpus = vm.spawn_vcpus()?;
        let handle = VmHandle::new(&vm, vcpus);
        Ok(Self {
            vcpus_now: handle.vcpu_states()?,
            vm_now: VmState::save(&handle.vm)?,
            key: handle.key(&Origin::default()),
            handle,
            vm,
        })
    }

    /// Becomes the VM that `template` was saved of: paused, with the template's memory copy-on-write.
    /// [`Vm::resume`] lets it run.
    ///
    /// `origin` is what the template is expected to be of. After an error the shell is of no use.
    pub fn take(
        mut self,
        template: &Template,
        origin: &Origin,
    ) -> Result<(Vm, Trace), SnapshotError> {
        let mut trace = Trace::start();
        let record = template.record();
        self.key.origin = origin.clone();
        record.key.check(&self.key)?;
        let state = &record.state;
        let complete = |what, have, need| match have == need {
            true => Ok(()),
            false => Err(SnapshotError::Incomplete { what, have, need }),
        };
        complete("vCPUs", state.vcpus.len(), self.vcpus_now.len())?;
        complete("devices", state.devices.len(), self.handle.devices.len())?;
        trace.step("check the key");

        // The memslots are there, and what they point to comes first: see `snapshot` for the order.
        let mapped = memory::map_private(&self.vm.memory, template.memory())?;
        trace.syscall(mapped);
        self.vm.kind = Kind::Plain;
        trace.step("map the memory");
        self.handle.vcpus.with_each(|index, vcpu| {
            let now = &self.vcpus_now[index];
            state.vcpus[index].restore(vcpu, now, &self.handle.cpu.context, &mut trace)
        })?;
        state
            .vm
            .restore(&self.handle.vm, &self.vm_now, &mut trace)?;
        self.handle.restore_devices(&state.devices)?;
        trace.step("devices");
        // Last: the guest is told that it is a fork when there is nothing left that could make it another one.
        vmgenid::write_fresh(&self.vm.memory)?;
        trace.requests(2, || vmgenid::tell(&self.handle.vm))?;
        trace.step("VMGenID");
        self.handle.first_run.set(template.shared_record());
        Ok((self.vm, trace))
    }

    /// The VM, for its parts: console, devices, event loop.
    pub fn vm_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// The VM's handle.
    pub fn handle(&self) -> VmHandle {
        self.handle.clone()
    }
}
