//! The virtio-mmio transport, version 2 (spec section 4.2.2).

mod events;
mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::{self, Write as _};

use acpi_tables::{Aml, aml};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use super::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, RingError, Rings, VirtioDevice};
use crate::devices::{Device, StateError};
use crate::memory::GuestMemory;

#[cfg(test)]
use state::TransportState;

/// Size of a device's MMIO window in bytes.
pub const WINDOW_SIZE: u64 = 0x1000;

/// Offset of `QueueNotify`. Register each of [`MmioTransport::notify_eventfds`] here as an ioeventfd of 4 bytes that
/// matches the queue's index.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

/// The device status bits that a driver may write (spec section 2.1).
const WRITABLE: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;

/// A device's address, GSI and ACPI id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioSlot {
    /// Guest-physical address of the window, page-aligned, below 4 GiB.
    pub base: u32,
    /// An edge-triggered GSI of the I/O APIC.
    pub gsi: u32,
    /// Unique among the virtio-mmio nodes, 0 to 0xff: `_UID` and the last two digits of the node's name.
    pub uid: u8,
}

/// One virtio device on the bus.
pub struct MmioTransport<D> {
    device: D,
    pub(super) rings: Rings,
    slot: MmioSlot,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    paused: bool,
    /// The cause of the first `DEVICE_NEEDS_RESET`.
    fault: Option<String>,
}

impl<D: VirtioDevice> MmioTransport<D> {
    /// A device in the state after power-on. Fails only if eventfd fails (RLIMIT_NOFILE).
    pub fn new(device: D, memory: GuestMemory, slot: MmioSlot) -> io::Result<Self> {
        Ok(Self {
            rings: Rings::new(device.queue_sizes(), memory)?,
            device,
            slot,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            paused: false,
            fault: None,
        })
    }

    /// The device behind the transport.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind the transport, mutable.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The eventfd to register as irqfd of the slot's GSI.
    pub fn irq_eventfd(&self) -> &EventFd {
        self.rings.interrupt().line()
    }

    /// The eventfds to register as ioeventfds, one per queue, at the slot's base + [`QUEUE_NOTIFY`].
    pub fn notify_eventfds(&self) -> &[EventFd] {
        self.rings.notify_eventfds()
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC
    }

    fn active(&self) -> bool {
        self.status & DRIVER_OK != 0 && self.status & NEEDS_RESET == 0
    }

    /// Stops the device until the driver resets it (spec section 2.1.2). Only the first cause is logged, since a guest
    /// could flood the log by breaking and resetting its device.
    fn needs_reset(&mut self, why: impl Display) {
        if self.fault.is_none() {
            let why = why.to_string();
            // A closed standard error changes nothing.
            let name = self.device.name();
            let _ = writeln!(io::stderr(), "cloude-vmm: device {name} stopped: {why}");
            self.fault = Some(why);
        }
        self.status |= NEEDS_RESET;
        if self.status & DRIVER_OK != 0 {
            self.rings.interrupt().signal_config();
        }
    }

    fn handle_result(&mut self, result: Result<(), RingError>) {
        if let Err(error) = result {
            self.needs_reset(error);
        }
    }

    /// `DRIVER_OK`: checks the queues once, then activates the device.
    fn activate(&mut self) {
        self.status |= DRIVER_OK;
        let event_idx = self.driver_features & F_EVENT_IDX != 0;
        for queue in &mut self.rings.queues {
            queue.set_event_idx(event_idx);
        }
        if let Some(index) = self.invalid_queue() {
            return self.needs_reset(format_args!("queue {index} lies outside guest memory"));
        }
        match self.device.activate(self.driver_features) {
            Ok(()) => self.kick_all(),
            Err(error) => self.needs_reset(error),
        }
    }

    fn invalid_queue(&self) -> Option<usize> {
        self.rings
            .queues
            .iter()
            .position(|queue| queue.ready() && !queue.is_valid(self.rings.memory()))
    }

    fn kick_all(&self) {
        for queue in 0..self.rings.queues.len() {
            self.rings.kick(queue);
        }
    }

    /// Returns to the state after construction: the driver wrote 0 to `Status`.
    fn reset(&mut self) {
        self.device.reset();
        for queue in &mut self.rings.queues {
            queue.reset();
        }
        self.rings.interrupt().set_status(0);
        self.status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
    }
}

impl<D: VirtioDevice> Device for MmioTransport<D> {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn pause(&mut self) {
        self.paused = true;
        if self.active() {
            let result = self.device.pause(&mut self.rings);
            self.handle_result(result);
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        if self.active() {
            self.device.resume();
            // Notifications and edges that were missed while paused, or between a save and this restore.
            self.kick_all();
        }
        self.rings.interrupt().raise_again();
    }

    fn save(&self) -> Result<Vec<u8>, StateError> {
        self.save_state()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.restore_state(state)
    }

    fn acpi_node(&self) -> Vec<u8> {
        let mut node = Vec::new();
        aml::Device::new(
            format!("VR{:02X}", self.slot.uid).as_str().into(),
            vec![
                // The id that Linux's virtio_mmio driver matches (drivers/virtio/virtio_mmio.c).
                &aml::Name::new("_HID".into(), &"LNRO0005"),
                &aml::Name::new("_UID".into(), &self.slot.uid),
                &aml::Name::new(
                    "_CRS".into(),
                    &aml::ResourceTemplate::new(vec![
                        &aml::Memory32Fixed::new(true, self.slot.base, WINDOW_SIZE as u32),
                        &aml::Interrupt::new(true, true, false, false, self.slot.gsi),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(&mut node);
        node
    }
}
