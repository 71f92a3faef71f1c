//! The transport's state in a snapshot.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState};

use super::{FEATURES_OK, MmioTransport, NEEDS_RESET, VirtioDevice, WRITABLE};
use crate::devices::StateError;
use crate::devices::state::{decode, encode};

/// Registers, queues and device-specific state.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct TransportState {
    /// `Status`.
    pub status: u32,
    /// `DeviceFeaturesSel`.
    pub device_features_sel: u32,
    /// `DriverFeaturesSel`.
    pub driver_features_sel: u32,
    /// `QueueSel`.
    pub queue_sel: u32,
    /// The features that the driver accepted.
    pub driver_features: u64,
    /// `InterruptStatus`: bits that the driver has not acknowledged.
    pub interrupt_status: u32,
    /// By queue index.
    pub queues: Vec<VirtqueueState>,
    /// Bytes of [`VirtioDevice::save`].
    pub device: Vec<u8>,
}

/// The state of one virtqueue.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct VirtqueueState {
    /// `QueueNum`: entries, chosen by the driver.
    pub size: u16,
    /// `QueueReady`.
    pub ready: bool,
    /// True if `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// The next entry to read of the available ring.
    pub next_avail: u16,
    /// The next entry to write of the used ring.
    pub next_used: u16,
    /// Guest-physical address of the descriptor table.
    pub desc_table: u64,
    /// Guest-physical address of the available ring.
    pub avail_ring: u64,
    /// Guest-physical address of the used ring.
    pub used_ring: u64,
}

impl VirtqueueState {
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
    pub(super) fn save_state(&self) -> Result<Vec<u8>, StateError> {
        let state = TransportState {
            status: self.status,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            queue_sel: self.queue_sel,
            driver_features: self.driver_features,
            interrupt_status: self.rings.interrupt().status(),
            queues: self.rings.queues.iter().map(VirtqueueState::of).collect(),
            device: self.device.save()?,
        };
        encode(self.device.name(), &state)
    }

    pub(super) fn restore_state(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: TransportState = decode(self.device.name(), state)?;
        self.check(&state)?;
        let sizes = self.device.queue_sizes();
        let mut queues = Vec::with_capacity(sizes.len());
        for (index, (saved, size)) in state.queues.iter().zip(sizes).enumerate() {
            let queue = saved.queue(*size);
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
                return Err(self.invalid(format!("queue {index} lies outside guest memory")));
            }
            let mut queues = 0..self.rings.queues.len();
            // A paused device holds no chain, and a restored one could never return one.
            if let Some(index) = queues.find(|index| self.rings.outstanding(*index) > 0) {
                return Err(self.invalid(format!(
                    "queue {index} has chains in use, and a paused device has none"
                )));
            }
            let result = self.device.activate(self.driver_features);
            result.map_err(|error| self.invalid(error.to_string()))?;
        }
        Ok(())
    }

    fn check(&self, state: &TransportState) -> Result<(), StateError> {
        if state.queues.len() != self.device.queue_sizes().len() {
            return Err(self.invalid(format!(
                "{} queues, this device has {}",
                state.queues.len(),
                self.device.queue_sizes().len()
            )));
        }
        if state.status & !(WRITABLE | NEEDS_RESET) != 0 {
            return Err(self.invalid(format!("status {:#x}", state.status)));
        }
        let agreed = state.status & FEATURES_OK != 0;
        if agreed && state.driver_features & !self.offered_features() != 0 {
            return Err(self.invalid(format!(
                "negotiated features {:#x}, this device offers {:#x}",
                state.driver_features,
                self.offered_features()
            )));
        }
        Ok(())
    }

    fn invalid(&self, what: String) -> StateError {
        StateError::invalid(self.device.name(), what)
    }
}
