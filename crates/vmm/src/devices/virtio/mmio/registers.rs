//! The register file: what a vCPU reads and writes.

use virtio_queue::{Queue, QueueT};

use super::{F_VERSION_1, MmioTransport, QUEUE_NOTIFY, VirtioDevice, status};
use crate::devices::{BusDevice, Device};

// Spec section 4.2.2, table 4.1.
const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
/// "CLDE": any value identifies us; no driver of Linux looks at it.
const VENDOR: u32 = u32::from_le_bytes(*b"CLDE");

impl<D: VirtioDevice> BusDevice for MmioTransport<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.device.read_config(offset, data);
        }
        // Registers are 32 bits wide, accessed whole (4.2.2.2); anything else reads as zero.
        if data.len() == 4 && offset.is_multiple_of(4) {
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.device.write_config(offset, data);
        }
        if let Ok(bytes) = data.try_into() {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
    }
}

impl<D: VirtioDevice> MmioTransport<D> {
    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.rings.queues.get(self.queue_sel as usize);
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => 2,
            DEVICE_ID => self.device.device_type(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => match self.device_features_sel {
                0 => self.offered_features() as u32,
                1 => (self.offered_features() >> 32) as u32,
                _ => 0,
            },
            // 0 says that there is no such queue.
            QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            INTERRUPT_STATUS => self.rings.interrupt().status(),
            STATUS => self.status,
            // No shared memory regions: all ones.
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX,
            CONFIG_GENERATION => self.config_generation,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES => self.write_driver_features(value),
            QUEUE_SEL => self.queue_sel = value,
            // Where no ioeventfd is registered the vCPU comes here; the work stays the event loop's.
            QUEUE_NOTIFY => self.rings.kick(value as usize),
            INTERRUPT_ACK => self.rings.interrupt().acknowledge(value),
            STATUS => self.write_status(value),
            QUEUE_READY if value == 0 => {
                if let Some(queue) = self.rings.queues.get_mut(self.queue_sel as usize) {
                    queue.set_ready(false);
                }
            }
            QUEUE_NUM | QUEUE_READY | QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH => {
                self.configure_queue(offset, value);
            }
            _ => {}
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        // Fixed once agreed upon (3.1.1 step 5).
        if self.status & status::FEATURES_OK != 0 || self.status & status::DRIVER == 0 {
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

    fn configure_queue(&mut self, offset: u64, value: u32) {
        let window = status::FEATURES_OK | status::DRIVER_OK | status::FAILED | status::NEEDS_RESET;
        if self.status & window != status::FEATURES_OK {
            return;
        }
        let Some(queue) = self.rings.queues.get_mut(self.queue_sel as usize) else {
            return;
        };
        // "The driver MUST NOT" change a queue that is ready (4.2.3.2).
        if !queue.ready() {
            configure(queue, offset, value);
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let value = value & status::WRITABLE;
        // A driver adds bits, and clears them by reset alone (2.1.1).
        if self.status & status::WRITABLE & !value != 0 {
            return;
        }
        let new = value & !self.status;
        self.status |= new & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
        if new & status::FEATURES_OK != 0 && self.features_acceptable() {
            self.status |= status::FEATURES_OK;
        }
        if new & status::DRIVER_OK != 0
            && self.status & status::FEATURES_OK != 0
            && self.status & (status::FAILED | status::NEEDS_RESET) == 0
        {
            self.activate();
        }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered_features() == 0
            && self.driver_features & F_VERSION_1 != 0
    }
}

fn configure(queue: &mut Queue, offset: u64, value: u32) {
    match offset {
        // A size that is no power of two, or too large, is not taken: the queue keeps its own.
        QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
        QUEUE_READY => queue.set_ready(value == 1),
        QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
        QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
        QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
        QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
        QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
        QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
        _ => {}
    }
}
