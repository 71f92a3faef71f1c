//! The loop of a vCPU: KVM_RUN, serve the exit, repeat.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN, kvm_mp_state, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress};

use super::immediate_exit::ImmediateExit;
use super::machine::Machine;
use crate::control::ExitReason;

/// The reason for which [`run`] returned.
pub(super) enum Outcome {
    /// A kick interrupted KVM_RUN; the thread's target may have changed.
    Kicked,
    /// The exit ends the VM.
    Ended(ExitReason),
}

/// Runs the guest until it ends or the thread is kicked.
///
/// It returns for a kick only after an interrupted KVM_RUN, never after a served exit: the next KVM_RUN
/// completes the I/O instruction, so that a paused vCPU is between two instructions.
pub(super) fn run(fd: &mut VcpuFd, immediate_exit: &ImmediateExit, machine: &Machine) -> Outcome {
    let run: *const kvm_run = fd.get_kvm_run();
    loop {
        let ended = match fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                // SAFETY: the exit reason is KVM_EXIT_IO, and `run` is mapped as long as `fd` lives.
                let size = unsafe { (*run).__bindgen_anon_1.io.size };
                for data in data.chunks(size.max(1).into()) {
                    machine.ports.write(port.into(), data);
                }
                machine.exit.is_raised().then_some(ExitReason::Stopped)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                // SAFETY: as above.
                let size = unsafe { (*run).__bindgen_anon_1.io.size };
                for data in data.chunks_mut(size.max(1).into()) {
                    machine.ports.read(port.into(), data);
                }
                None
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                machine.mmio.read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                machine.mmio.write(address, data);
                None
            }
            Ok(VcpuExit::InternalError) => Some(internal_error(fd, machine)),
            Ok(exit) => end_of(exit),
            Err(error) if error.errno() == libc::EINTR => {
                // Before the target is read: a kick after this point makes the next KVM_RUN return.
                immediate_exit.set(0);
                return Outcome::Kicked;
            }
            // A vCPU in KVM_MP_STATE_UNINITIALIZED returns EAGAIN when another vCPU starts it, or spuriously.
            Err(error) if error.errno() == libc::EAGAIN => None,
            Err(error) => Some(ExitReason::Unhandled {
                exit: format!("KVM_RUN: {error}"),
            }),
        };
        if let Some(reason) = ended {
            return Outcome::Ended(reason);
        }
    }
}

/// Calls KVM_RUN once on a vCPU whose VM has no memory. It fails at the reset vector, 16 bytes below 4 GiB.
///
/// KVM allocates a vCPU's page-table caches in its first KVM_RUN and starts a VM's recovery thread in the VM's
/// first. A later KVM_RUN on the same thread also needs no RCU grace period for the vCPU's `pid` (Linux,
/// virt/kvm/kvm_main.c, kvm_vcpu_ioctl). The kind of failure does not matter: the restore overwrites the state
/// that it leaves, such as a pending exception.
pub(super) fn warm_up(fd: &mut VcpuFd) {
    // A vCPU other than 0 would wait for INIT and SIPI.
    let runnable = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    if fd.set_mp_state(runnable).is_ok() {
        let _ = fd.run();
    }
}

/// The reason if this exit ends the VM.
fn end_of(exit: VcpuExit) -> Option<ExitReason> {
    match exit {
        VcpuExit::Shutdown => Some(ExitReason::TripleFault),
        VcpuExit::FailEntry(reason, _) => Some(ExitReason::FailEntry { reason }),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => Some(ExitReason::PowerOff),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => Some(ExitReason::Reset),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _) => Some(ExitReason::Panic),
        VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_) => None,
        other => Some(ExitReason::Unhandled {
            exit: format!("{other:?}"),
        }),
    }
}

fn internal_error(fd: &mut VcpuFd, machine: &Machine) -> ExitReason {
    // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let count = (internal.ndata as usize).min(internal.data.len());
    let rip = fd.get_regs().map_or(0, |regs| regs.rip);
    ExitReason::InternalError {
        suberror: internal.suberror,
        data: internal.data[..count].to_vec(),
        rip,
        instruction: instruction(fd, machine, rip).unwrap_or_default(),
    }
}

/// The longest x86 instruction in bytes.
const LONGEST_INSTRUCTION: usize = 15;

fn instruction(fd: &VcpuFd, machine: &Machine, rip: u64) -> Option<Vec<u8>> {
    let base = fd.get_sregs().ok()?.cs.base;
    let address = fd.translate_gva(base.wrapping_add(rip)).ok()?;
    if address.valid == 0 {
        return None;
    }
    let mut bytes = vec![0; LONGEST_INSTRUCTION];
    let count = machine
        .memory
        .read(&mut bytes, GuestAddress(address.physical_address))
        .ok()?;
    bytes.truncate(count);
    Some(bytes)
}
