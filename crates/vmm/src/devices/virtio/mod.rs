//! Virtio devices (version 1.2 of the specification, "the spec" here) on the MMIO transport.
//!
//! [`MmioTransport`] holds the register file, the queues and the interrupt of one device, and is
//! what the VM's owner attaches: a [`super::BusDevice`] for the vCPUs and an
//! [`event_manager::MutEventSubscriber`] for the event loop. A [`VirtioDevice`] is what differs:
//! features, configuration space, and what to do with the buffers of its queues.
//!
//! All work on buffers happens on the event-loop thread. A vCPU only sets registers: its
//! `QueueNotify` reaches the event loop through an eventfd, written by KVM (ioeventfd) or, where no
//! ioeventfd is registered, by the transport.
//!
//! Nothing that the guest writes is trusted. Descriptors are checked against the guest's memory before
//! use, the queue's size bounds the length of a chain and the number of chains that a device holds, and a
//! queue that breaks the rules stops the device with `DEVICE_NEEDS_RESET`.

pub mod mmio;
pub mod net;
pub mod rng;
pub mod vsock;

#[cfg(test)]
mod hostile;
mod interrupt;
mod io;
mod queue;
#[cfg(test)]
mod testing;

use std::os::fd::RawFd;

use event_manager::EventSet;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

pub use interrupt::Interrupt;
pub use mmio::{MmioSlot, MmioTransport};
pub use queue::{Chain, RingError, Rings, Segment};

use super::StateError;
use super::state::expect_none;

/// A descriptor may point to a table of descriptors (spec section 6).
const F_INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Each side says at which index it wants to be woken (spec section 6).
const F_EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// Not a legacy device (spec section 6). Without it nothing is negotiated.
const F_VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

/// A descriptor that the event loop watches for a device, edge-triggered, for the device's lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The descriptor; the device keeps it open.
    pub fd: RawFd,
    /// What to wait for.
    pub events: EventSet,
}

/// A device could not take up its work with the features that the driver chose.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The TAP refused the offloads that were negotiated. Give the worker a TAP that was made with
    /// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    #[error("the TAP refused the offloads {flags:#x}: {source}")]
    Offload {
        /// The `TUN_F_*` bits.
        flags: u32,
        /// Why.
        source: std::io::Error,
    },
}

/// What one kind of virtio device does behind the transport.
///
/// The transport calls everything under its owner's lock, so nothing here may block. `features`,
/// `read_config`, `activate` and `reset` come from a vCPU thread; `queue_ready` and `fd_ready` from the
/// event loop; the rest from the VM's owner while no vCPU runs.
pub trait VirtioDevice: Send {
    /// The short unique name; also the key in a snapshot.
    fn name(&self) -> &'static str;

    /// The device type (spec section 5).
    fn device_type(&self) -> u32;

    /// The largest size of each queue, powers of two up to 32768.
    fn queue_sizes(&self) -> &'static [u16];

    /// The device's own feature bits; the transport adds those of the transport and the rings.
    fn features(&self) -> u64 {
        0
    }

    /// A read of the configuration space, which a driver only reads. `data` comes zeroed; what is past the
    /// end stays so.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    /// The driver is ready (`DRIVER_OK`), with these negotiated features. Each queue is notified once
    /// right after.
    fn activate(&mut self, _features: u64) -> Result<(), ActivateError> {
        Ok(())
    }

    /// The driver has put buffers into `queue`, or there may be other work for it: also called once
    /// after [`VirtioDevice::activate`] and after each [`super::Device::resume`].
    fn queue_ready(&mut self, rings: &mut Rings, queue: usize) -> Result<(), RingError>;

    /// The descriptors that [`VirtioDevice::fd_ready`] is for. Fixed from construction on.
    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }

    /// Watch number `watch` is ready. `rings` is `None` while the driver is not. Not called while paused.
    fn fd_ready(
        &mut self,
        _rings: Option<&mut Rings>,
        _watch: usize,
        _events: EventSet,
    ) -> Result<(), RingError> {
        Ok(())
    }

    /// The vCPUs have stopped: the device returns or unpops every chain that it holds, so that the rings are
    /// the whole state of the queues.
    fn pause(&mut self, _rings: &mut Rings) -> Result<(), RingError> {
        Ok(())
    }

    /// The vCPUs are about to run (again): what came from outside while they did not may be dropped here.
    /// Every queue is worked on right after.
    fn resume(&mut self) {}

    /// The driver reset the device: back to the state after construction, keeping host descriptors that
    /// were given at construction.
    fn reset(&mut self) {}

    /// Returns the device-specific state, while paused: postcard bytes, empty without state. The transport saves
    /// registers and queues.
    fn save(&self) -> Result<Vec<u8>, StateError> {
        Ok(Vec::new())
    }

    /// Restores a state from [`VirtioDevice::save`]. [`VirtioDevice::activate`] follows if the driver was ready.
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        expect_none(self.name(), state)
    }
}

/// Copies the part of a configuration space that a read asks for.
fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let tail = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..));
    for (to, from) in data.iter_mut().zip(tail.unwrap_or_default()) {
        *to = *from;
    }
}
