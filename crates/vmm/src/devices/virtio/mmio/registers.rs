//! The MMIO registers that a vCPU reads and writes.

use virtio_bindings::virtio_mmio::*;
use virtio_queue::{Queue, QueueT};

use super::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, F_VERSION_1, FAILED, FEATURES_OK, MmioTransport, NEEDS_RESET,
    VirtioDevice, WRITABLE,
};
use crate::devices::BusDevice;

/// Offset of the configuration space; below it are 32-bit registers.
const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
/// "CLDE": an arbitrary value that Linux's drivers do not use.
const VENDOR: u32 = u32::from_le_bytes(*b"CLDE");

impl<D: VirtioDevice> BusDevice for MmioTransport<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.device.read_config(offset, data);
        }
        // Registers must be accessed as aligned 32-bit words (4.2.2.2); other reads return zero.
        if data.len() == 4 && offset.is_multiple_of(4) {
            data.copy_from_slice(&self.read_register(offset as u32).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // No device has a writable configuration field.
        if offset < CONFIG
            && let Ok(bytes) = data.try_into()
        {
            self.write_register(offset as u32, u32::from_le_bytes(bytes));
        }
    }
}

impl<D: VirtioDevice> MmioTransport<D> {
    fn read_register(&self, offset: u32) -> u32 {
        let queue = self.rings.queues.get(self.queue_sel as usize);
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => 2,
            VIRTIO_MMIO_DEVICE_ID => self.device.device_type(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.device_features_sel {
                0 => self.offered_features() as u32,
                1 => (self.offered_features() >> 32) as u32,
                _ => 0,
            },
            // 0 means that the queue does not exist.
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.rings.interrupt().status(),
            VIRTIO_MMIO_STATUS => self.status,
            // No shared memory regions: all ones.
            VIRTIO_MMIO_SHM_LEN_LOW..=VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            // `ConfigGeneration` among them: the configuration never changes.
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_driver_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            // Without an ioeventfd the vCPU exits to here; the event loop still processes the queue.
            VIRTIO_MMIO_QUEUE_NOTIFY => self.rings.kick(value as usize),
            VIRTIO_MMIO_INTERRUPT_ACK => self.rings.interrupt().acknowledge(value),
            VIRTIO_MMIO_STATUS => self.write_status(value),
            VIRTIO_MMIO_QUEUE_READY if value == 0 => {
                if let Some(queue) = self.rings.queues.get_mut(self.queue_sel as usize) {
                    queue.set_ready(false);
                }
            }
            VIRTIO_MMIO_QUEUE_NUM
            | VIRTIO_MMIO_QUEUE_READY
            | VIRTIO_MMIO_QUEUE_DESC_LOW..=VIRTIO_MMIO_QUEUE_USED_HIGH => {
                self.configure_queue(offset, value);
            }
            _ => {}
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        // Fixed after FEATURES_OK (3.1.1 step 5).
        if self.status & FEATURES_OK != 0 || self.status & DRIVER == 0 {
            return;
        }
        let shift = match self.driver_features_sel {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let mask = u64::from(u32::MAX) << shift;
        self.driver_features = (self.driver_features & !mask) | (u64::from(value) << shift);
    }

    fn configure_queue(&mut self, offset: u32, value: u32) {
        let window = FEATURES_OK | DRIVER_OK | FAILED | NEEDS_RESET;
        if self.status & window != FEATURES_OK {
            return;
        }
        let Some(queue) = self.rings.queues.get_mut(self.queue_sel as usize) else {
            return;
        };
        // A driver must not change a queue that is ready (4.2.3.2).
        if !queue.ready() {
            configure(queue, offset, value);
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let value = value & WRITABLE;
        // A driver only adds bits; a reset clears them (2.1.1).
        if self.status & WRITABLE & !value != 0 {
            return;
        }
        let new = value & !self.status;
        self.status |= new & (ACKNOWLEDGE | DRIVER | FAILED);
        if new & FEATURES_OK != 0 && self.features_acceptable() {
            self.status |= FEATURES_OK;
        }
        if new & DRIVER_OK != 0
            && self.status & FEATURES_OK != 0
            && self.status & (FAILED | NEEDS_RESET) == 0
        {
            self.activate();
        }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered_features() == 0
            && self.driver_features & F_VERSION_1 != 0
    }
}

fn configure(queue: &mut Queue, offset: u32, value: u32) {
    match offset {
        // The queue keeps its size if the new one is not a power of two or is too large.
        VIRTIO_MMIO_QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
        VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
        VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
        VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
        VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
        VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
        VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
        _ => {}
    }
}
