//! The inner loop of a vCPU: enter the guest, answer its exit, again.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN, kvm_mp_state, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress};

use super::{ImmediateExit, Machine};
use crate::control::ExitReason;

/// Why the guest was left.
pub(super) enum Left {
    /// The thread's target changed.
    Kicked,
    /// The VM ended.
    Ended(ExitReason),
}

/// Runs the guest until it ends or the thread is kicked.
///
/// The target is looked at after an interrupted KVM_RUN alone, never after an exit: an access that
/// the guest began is finished by the next KVM_RUN, so that a paused vCPU is between two instructions.
pub(super) fn run(fd: &mut VcpuFd, immediate_exit: &ImmediateExit, machine: &Machine) -> Left {
    let run: *const kvm_run = fd.get_kvm_run();
    loop {
        let ended = match fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                // SAFETY: the exit is of the kind `io`, and `run` is mapped as long as `fd` lives.
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
                // Before the target is looked at: a kick that comes now is seen by the next KVM_RUN.
                immediate_exit.set(0);
                return Left::Kicked;
            }
            // A vCPU that another one has to start: it was started, or was woken for nothing.
            Err(error) if error.errno() == libc::EAGAIN => None,
            Err(error) => Some(ExitReason::Unhandled {
                exit: format!("KVM_RUN: {error}"),
            }),
        };
        if let Some(reason) = ended {
            return Left::Ended(reason);
        }
    }
}

/// Runs a vCPU whose VM has no memory: it fails at its first instruction, 16 bytes below 4 GiB.
///
/// The first run of a vCPU makes KVM allocate its page tables' caches, and the first of a VM start a kernel
/// thread; that it was on this very thread spares the next run a grace period (Linux, virt/kvm/kvm_main.c,
/// kvm_vcpu_ioctl). Only that is wanted, so that it does not matter how it fails. What it leaves, such as an
/// exception that waits, is overwritten by the state to come.
pub(super) fn warm_up(fd: &mut VcpuFd) {
    // Or it would wait for another vCPU to start it.
    let runnable = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    if fd.set_mp_state(runnable).is_ok() {
        let _ = fd.run();
    }
}

/// The exits that end a VM, and `None` for those that do not.
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
    // SAFETY: the exit is of the kind `internal`.
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

/// The longest instruction of x86 has 15 bytes.
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
