//! Virtio devices (version 1.2 of the specification, "the spec" here) on the MMIO transport.
//!
//! [`MmioTransport`] has the registers, queues and interrupt of one device. It is a [`super::BusDevice`] for the vCPUs
//! and an [`event_manager::MutEventSubscriber`] for the event loop. A [`VirtioDevice`] implements one device type:
//! features, configuration space and the processing of buffers.
//!
//! Buffers are processed only on the event-loop thread. A vCPU only accesses registers; its `QueueNotify` reaches the
//! event loop through an eventfd, which KVM writes (ioeventfd), or the transport if no ioeventfd is registered.
//!
//! The guest is not trusted. Every descriptor is checked against guest memory before use. The queue's size bounds the
//! length of a chain and the number of chains that a device holds. A malformed queue stops the device with
//! `DEVICE_NEEDS_RESET`.

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod mmio;
pub mod net;
pub mod rng;
pub mod vsock;

#[cfg(test)]
mod hostile;
mod interrupt;
mod io;
#[cfg(test)]
mod model;
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

/// VIRTIO_F_INDIRECT_DESC: a descriptor may point to a table of descriptors (spec section 6).
const F_INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// VIRTIO_F_EVENT_IDX: each side sets the index at which it wants to be notified (spec section 6).
const F_EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// VIRTIO_F_VERSION_1: not a legacy device (spec section 6). A driver must accept it.
const F_VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

/// A descriptor that the event loop watches for a device, edge-triggered, for the device's lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The descriptor; the device keeps it open.
    pub fd: RawFd,
    /// The events to wait for.
    pub events: EventSet,
}

/// A device that cannot work with the negotiated features.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// TUNSETOFFLOAD failed. Create the TAP with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    #[error("TUNSETOFFLOAD with flags {flags:#x} failed on the TAP: {source}")]
    Offload {
        /// The `TUN_F_*` bits.
        flags: u32,
        /// The error of the ioctl.
        source: std::io::Error,
    },
}

/// One type of virtio device, behind [`MmioTransport`].
///
/// The transport calls every method under the device's lock, so no method may block. A vCPU thread calls `features`,
/// `read_config`, `activate` and `reset`. The event loop calls `queue_ready` and `fd_ready`. The VM's owner calls the
/// others while no vCPU runs.
pub trait VirtioDevice: Send {
    /// A short unique name ([`super::Device::name`]).
    fn name(&self) -> &'static str;

    /// The device type (spec section 5).
    fn device_type(&self) -> u32;

    /// The maximum size of each queue: powers of two up to 32768.
    fn queue_sizes(&self) -> &'static [u16];

    /// The device-specific feature bits. The transport adds those of transport and rings.
    fn features(&self) -> u64 {
        0
    }

    /// Reads the configuration space at `offset` into `data`, which is zeroed. Bytes past the end stay zero. Drivers
    /// cannot write the configuration space.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    /// Called at `DRIVER_OK` with the negotiated features. A call of [`VirtioDevice::queue_ready`] for each queue
    /// follows.
    fn activate(&mut self, _features: u64) -> Result<(), ActivateError> {
        Ok(())
    }

    /// Processes `queue`, to which the driver may have added buffers. Also called after [`VirtioDevice::activate`] and
    /// after each [`super::Device::resume`].
    fn queue_ready(&mut self, rings: &mut Rings, queue: usize) -> Result<(), RingError>;

    /// The host descriptors to watch. The list must not change during the device's lifetime.
    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }

    /// Called when the descriptor with index `watch` in [`VirtioDevice::watches`] is ready; not while paused. `rings`
    /// is
    /// `None` before `DRIVER_OK`.
    fn fd_ready(
        &mut self,
        _rings: Option<&mut Rings>,
        _watch: usize,
        _events: EventSet,
    ) -> Result<(), RingError> {
        Ok(())
    }

    /// Called after the vCPUs have stopped. The device must return or unpop every chain that it holds, so that a
    /// snapshot of the rings is complete.
    fn pause(&mut self, _rings: &mut Rings) -> Result<(), RingError> {
        Ok(())
    }

    /// Called before the vCPUs run again. The device may drop input that arrived while it was paused. A call of
    /// [`VirtioDevice::queue_ready`] for each queue follows.
    fn resume(&mut self) {}

    /// Returns to the state after construction, because the driver reset the device. Host descriptors are kept.
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

/// Copies from a configuration space; bytes past its end are not written.
fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let tail = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..));
    for (to, from) in data.iter_mut().zip(tail.unwrap_or_default()) {
        *to = *from;
    }
}
