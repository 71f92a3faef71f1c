//! The interrupt of one device: the status register that the driver reads, and the line.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_INT_CONFIG as INT_CONFIG, VIRTIO_MMIO_INT_VRING as INT_VRING,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The status register and the eventfd that raises the line.
///
/// The eventfd is for `KVM_IRQFD` on an edge-triggered GSI: one write is one edge.
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

    /// Sets the status without raising the line: for reset and restore.
    pub(super) fn set_status(&self, status: u32) {
        self.status
            .store(status & (INT_VRING | INT_CONFIG), Ordering::SeqCst);
    }

    /// Tells the driver of used buffers.
    pub fn signal_queue(&self) {
        self.signal(INT_VRING);
    }

    /// Tells the driver of a change of the configuration or of the device status.
    pub fn signal_config(&self) {
        self.signal(INT_CONFIG);
    }

    /// Raises the line again if something is unacknowledged. An interrupt too many is harmless, for
    /// the driver reads the status; one too few hangs it.
    pub(super) fn raise_again(&self) {
        if self.status() != 0 {
            self.raise();
        }
    }

    fn signal(&self, bit: u32) {
        // The status is set before the edge: the driver's handler reads it first.
        self.status.fetch_or(bit, Ordering::SeqCst);
        self.raise();
    }

    fn raise(&self) {
        // Only a counter that would overflow can refuse, and then an edge is already pending.
        let _ = self.line.write(1);
    }
}
