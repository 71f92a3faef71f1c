//! The interrupt of one device: `InterruptStatus`, and the irqfd that raises the GSI.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_INT_CONFIG as INT_CONFIG, VIRTIO_MMIO_INT_VRING as INT_VRING,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// `InterruptStatus` and the eventfd for KVM_IRQFD. The GSI is edge-triggered: one write is one edge.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    line: EventFd,
}

impl Interrupt {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            status: AtomicU32::new(0),
            line: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// The eventfd to register as irqfd.
    pub fn line(&self) -> &EventFd {
        &self.line
    }

    /// The `InterruptStatus` register.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// A write to `InterruptACK`.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Sets `InterruptStatus` without an interrupt, for reset and restore.
    pub(super) fn set_status(&self, status: u32) {
        self.status
            .store(status & (INT_VRING | INT_CONFIG), Ordering::SeqCst);
    }

    /// Interrupts the driver for used buffers.
    pub fn signal_queue(&self) {
        self.signal(INT_VRING);
    }

    /// Interrupts the driver for a change of configuration or device status.
    pub fn signal_config(&self) {
        self.signal(INT_CONFIG);
    }

    /// Raises the interrupt again if a bit is unacknowledged. A spurious interrupt is harmless, since the driver reads
    /// `InterruptStatus`; a lost one hangs the driver.
    pub(super) fn raise_again(&self) {
        if self.status() != 0 {
            self.raise();
        }
    }

    fn signal(&self, bit: u32) {
        // Before the edge: the driver's handler reads the status.
        self.status.fetch_or(bit, Ordering::SeqCst);
        self.raise();
    }

    fn raise(&self) {
        // Fails only if the counter would overflow, and then an edge is already pending.
        let _ = self.line.write(1);
    }
}
