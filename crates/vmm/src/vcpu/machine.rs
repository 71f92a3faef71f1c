//! The parts of the machine that a vCPU's exits need.

use std::sync::Arc;

use crate::bus::Bus;
use crate::exit::ExitSignal;
use crate::memory::GuestMemory;

/// The buses, memory and exit signal that every vCPU thread of a VM uses.
#[derive(Clone)]
pub struct Machine {
    /// Devices behind I/O ports (KVM_EXIT_IO).
    pub ports: Arc<Bus>,
    /// Devices behind MMIO windows (KVM_EXIT_MMIO).
    pub mmio: Arc<Bus>,
    /// Guest memory, to read the instruction that KVM failed to emulate.
    pub memory: GuestMemory,
    /// Raised by the vCPU whose exit ends the VM.
    pub exit: ExitSignal,
}
