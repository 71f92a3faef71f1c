//! What a snapshot keeps of the transport.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use virtio_queue::{Queue, QueueState};

use super::{FEATURES_OK, MmioTransport, NEEDS_RESET, VirtioDevice, WRITABLE};
use crate::devices::StateError;

/// The version of [`TransportState`]; a record of another is refused.
const VERSION: u32 = 2;

/// The registers and queues of a device, and the device's own state.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TransportState {
    /// The version of this record.
    pub version: u32,
    /// The device status register.
    pub status: u32,
    /// Selectors, as the driver left them.
    pub device_features_sel: u32,
    /// See above.
    pub driver_features_sel: u32,
    /// See above.
    pub queue_sel: u32,
    /// What the driver chose.
    pub driver_features: u64,
    /// Unacknowledged interrupt bits.
    pub interrupt_status: u32,
    /// In the order of their indices.
    pub queues: Vec<QueueRecord>,
    /// The device's own.
    pub device: Value,
}

/// One queue.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct QueueRecord {
    /// Entries, as the driver chose.
    pub size: u16,
    /// Whether the driver has set it up.
    pub ready: bool,
    /// Whether `VIRTIO_F_EVENT_IDX` holds.
    pub event_idx: bool,
    /// The next index to take from the available ring.
    pub next_avail: u16,
    /// The next index to fill in the used ring.
    pub next_used: u16,
    /// Guest-physical address of the descriptor table.
    pub desc_table: u64,
    /// Guest-physical address of the available ring.
    pub avail_ring: u64,
    /// Guest-physical address of the used ring.
    pub used_ring: u64,
}

impl QueueRecord {
    fn of(queue: &Queue) -> Self {
        let state = queue.state();
        Self {
            size: state.size,
            ready: state.ready,
            event_idx: state.event_idx_enabled,
            next_avail: state.next_avail,
            next_used: state.next_used,
            desc_table: state.desc_table,
            avail_ring: state.avail_ring,
            used_ring: state.used_ring,
        }
    }

    fn queue(&self, max_size: u16) -> Result<Queue, virtio_queue::Error> {
        Queue::try_from(QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: self.ready,
            desc_table: self.desc_table,
            avail_ring: self.avail_ring,
            used_ring: self.used_ring,
        })
    }
}

impl<D: VirtioDevice> MmioTransport<D> {
    pub(super) fn save_state(&self) -> Result<Value, StateError> {
        let state = TransportState {
            version: VERSION,
            status: self.status,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            queue_sel: self.queue_sel,
            driver_features: self.driver_features,
            interrupt_status: self.rings.interrupt().status(),
            queues: self.rings.queues.iter().map(QueueRecord::of).collect(),
            device: self.device.save()?,
        };
        serde_json::to_value(state).map_err(|source| self.format_error(source))
    }

    pub(super) fn restore_state(&mut self, state: &Value) -> Result<(), StateError> {
        let state =
            TransportState::deserialize(state).map_err(|source| self.format_error(source))?;
        self.check(&state)?;
        let sizes = self.device.queue_sizes();
        let mut queues = Vec::with_capacity(sizes.len());
        for (index, (record, size)) in state.queues.iter().zip(sizes).enumerate() {
            let queue = record.queue(*size);
            queues.push(queue.map_err(|e| self.invalid(format!("queue {index}: {e}")))?);
        }
        self.device.restore(&state.device)?;
        self.rings.queues = queues;
        self.rings.interrupt().set_status(state.interrupt_status);
        self.status = state.status;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.queue_sel = state.queue_sel;
        self.driver_features = state.driver_features;
        self.paused = true;
        if self.active() {
            if let Some(index) = self.invalid_queue() {
                return Err(self.invalid(format!("queue {index} lies outside memory")));
            }
            let mut queues = 0..self.rings.queues.len();
            // A paused device has returned all, and this one would never return the rest.
            if let Some(index) = queues.find(|index| self.rings.outstanding(*index) > 0) {
                return Err(self.invalid(format!("queue {index} has chains that no device holds")));
            }
            let result = self.device.activate(self.driver_features);
            result.map_err(|error| self.invalid(error.to_string()))?;
        }
        Ok(())
    }

    fn check(&self, state: &TransportState) -> Result<(), StateError> {
        if state.version != VERSION {
            return Err(self.invalid(format!("version {}, not {VERSION}", state.version)));
        }
        if state.queues.len() != self.device.queue_sizes().len() {
            return Err(self.invalid(format!("{} queues", state.queues.len())));
        }
        if state.status & !(WRITABLE | NEEDS_RESET) != 0 {
            return Err(self.invalid(format!("status {:#x}", state.status)));
        }
        let agreed = state.status & FEATURES_OK != 0;
        if agreed && state.driver_features & !self.offered_features() != 0 {
            return Err(self.invalid(format!(
                "features {:#x}, of which this device offers {:#x}",
                state.driver_features,
                self.offered_features()
            )));
        }
        Ok(())
    }

    fn format_error(&self, source: serde_json::Error) -> StateError {
        StateError::Format {
            device: self.device.name(),
            source,
        }
    }

    fn invalid(&self, what: String) -> StateError {
        StateError::Invalid {
            device: self.device.name(),
            what,
        }
    }
}
