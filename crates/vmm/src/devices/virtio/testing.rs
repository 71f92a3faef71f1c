//! A virtio driver for tests. It uses only the device's registers and guest memory, as a kernel's driver does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use event_manager::{EventManager, SubscriberOps};
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};

use super::mmio::{MmioSlot, MmioTransport};
use super::{F_EVENT_IDX, F_VERSION_1, VirtioDevice};
use crate::devices::{BusDevice, Device};
use crate::memory::GuestMemory;

pub const MEMORY_SIZE: usize = 64 << 20;
/// The size that `Driver` sets for each queue.
pub const RING_SIZE: u16 = 64;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

const STATUS: u32 = VIRTIO_MMIO_STATUS;

/// One buffer of a chain: guest-physical address, length, and true if the device writes it.
pub type Buffer = (u64, u32, bool);

struct Ring {
    base: u64,
    free: VecDeque<u16>,
    chains: Vec<Vec<u16>>,
    avail: u16,
    seen: u16,
}

pub struct Driver<D: VirtioDevice> {
    pub transport: Arc<Mutex<MmioTransport<D>>>,
    pub memory: GuestMemory,
    manager: EventManager<Arc<Mutex<MmioTransport<D>>>>,
    rings: Vec<Ring>,
}

pub fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)]).unwrap()
}

pub fn slot() -> MmioSlot {
    MmioSlot {
        base: 0xd000_0000,
        gsi: 5,
        uid: 1,
    }
}

impl<D: VirtioDevice> Driver<D> {
    /// A device after power-on.
    pub fn new(device: D) -> Self {
        Self::on(device, memory())
    }

    fn on(device: D, memory: GuestMemory) -> Self {
        let queues = device.queue_sizes().len() as u64;
        let transport = MmioTransport::new(device, memory.clone(), slot()).unwrap();
        let transport = Arc::new(Mutex::new(transport));
        let mut manager = EventManager::new().unwrap();
        manager.add_subscriber(Arc::clone(&transport));
        let rings = (0..queues).map(|queue| Ring {
            base: 0x10000 * (queue + 1),
            free: (0..RING_SIZE).collect(),
            chains: vec![Vec::new(); usize::from(RING_SIZE)],
            avail: 0,
            seen: 0,
        });
        Self {
            transport,
            memory,
            manager,
            rings: rings.collect(),
        }
    }

    /// A device after DRIVER_OK, with every feature that it offers.
    pub fn started(device: D) -> Self {
        Self::started_with(device, u64::MAX)
    }

    /// A device after DRIVER_OK, with those of `features` that it offers.
    pub fn started_with(device: D, features: u64) -> Self {
        let mut driver = Self::new(device);
        driver.negotiate(features);
        driver.set_up_queues();
        driver.write(STATUS, 0xf);
        assert_eq!(driver.read(STATUS), 0xf);
        driver.run();
        driver
    }

    pub fn negotiate(&mut self, features: u64) {
        self.write(STATUS, 0);
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        let chosen = self.offered() & features;
        for half in 0..2 {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, (chosen >> (32 * half)) as u32);
        }
        self.write(STATUS, 0xb);
    }

    pub fn offered(&self) -> u64 {
        (0..2).fold(0, |all, half| {
            self.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            all | u64::from(self.read(VIRTIO_MMIO_DEVICE_FEATURES)) << (32 * half)
        })
    }

    pub fn set_up_queues(&mut self) {
        for queue in 0..self.rings.len() {
            let base = self.rings[queue].base;
            self.write(VIRTIO_MMIO_QUEUE_SEL, queue as u32);
            self.write(VIRTIO_MMIO_QUEUE_NUM, u32::from(RING_SIZE));
            self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, base as u32);
            self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, self.avail_ring(queue) as u32);
            self.write(VIRTIO_MMIO_QUEUE_USED_LOW, self.used_ring(queue) as u32);
            self.write(VIRTIO_MMIO_QUEUE_READY, 1);
        }
    }

    pub fn device(&self) -> MutexGuard<'_, MmioTransport<D>> {
        self.transport.lock().unwrap()
    }

    pub fn read(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.device().read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&self, offset: u32, value: u32) {
        self.device().write(offset.into(), &value.to_le_bytes());
    }

    pub fn needs_reset(&self) -> bool {
        self.read(STATUS) & 64 != 0
    }

    /// Runs the event loop until no descriptor is ready.
    pub fn run(&mut self) {
        while self.manager.run_with_timeout(0).unwrap() > 0 {}
    }

    /// Runs the event loop once, waiting for at most `milliseconds`; -1 waits without limit.
    pub fn wait(&mut self, milliseconds: i32) {
        self.manager.run_with_timeout(milliseconds).unwrap();
    }

    pub fn avail_ring(&self, queue: usize) -> u64 {
        self.rings[queue].base + 0x4000
    }

    pub fn used_ring(&self, queue: usize) -> u64 {
        self.rings[queue].base + 0x8000
    }

    pub fn write_descriptor(&self, queue: usize, index: u16, raw: (u64, u32, u16, u16)) {
        self.write_descriptor_at(self.rings[queue].base, index, raw);
    }

    pub fn write_descriptor_at(&self, table: u64, index: u16, raw: (u64, u32, u16, u16)) {
        let at = GuestAddress(table + 16 * u64::from(index));
        let (address, len, flags, next) = raw;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// Makes a chain available without notifying, and returns its first descriptor.
    pub fn add(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let ring = &mut self.rings[queue];
        let ids: Vec<u16> = buffers
            .iter()
            .map(|_| ring.free.pop_front().unwrap())
            .collect();
        for (place, (address, len, writable)) in buffers.iter().enumerate() {
            let next = ids.get(place + 1).copied();
            let flags = next.map_or(0, |_| NEXT) | if *writable { WRITE } else { 0 };
            self.write_descriptor(
                queue,
                ids[place],
                (*address, *len, flags, next.unwrap_or(0)),
            );
        }
        let head = ids[0];
        self.rings[queue].chains[usize::from(head)] = ids;
        self.publish(queue, head);
        head
    }

    /// Puts a descriptor index into the available ring without checking it.
    pub fn publish(&mut self, queue: usize, head: u16) {
        let avail = self.avail_ring(queue);
        let ring = &mut self.rings[queue];
        let entry = avail + 4 + 2 * u64::from(ring.avail % RING_SIZE);
        ring.avail = ring.avail.wrapping_add(1);
        let index = ring.avail;
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        self.memory
            .write_obj(index, GuestAddress(avail + 2))
            .unwrap();
    }

    pub fn notify(&self, queue: usize) {
        self.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue as u32);
    }

    /// Makes a chain available, notifies, and runs the event loop.
    pub fn submit(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let head = self.add(queue, buffers);
        self.notify(queue);
        self.run();
        head
    }

    /// The next entry of the used ring: the chain's first descriptor and the bytes written.
    pub fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let base = self.used_ring(queue);
        let index: u16 = self.memory.read_obj(GuestAddress(base + 2)).unwrap();
        let event = self.avail_ring(queue) + 4 + 2 * u64::from(RING_SIZE);
        let ring = &mut self.rings[queue];
        // used_event of VIRTIO_F_EVENT_IDX: interrupt for the next entry.
        self.memory
            .write_obj(ring.seen, GuestAddress(event))
            .unwrap();
        if index == ring.seen {
            return None;
        }
        let entry = GuestAddress(base + 4 + 8 * u64::from(ring.seen % RING_SIZE));
        let [head, len]: [u32; 2] = self.memory.read_obj(entry).unwrap();
        ring.seen = ring.seen.wrapping_add(1);
        let ids = std::mem::take(&mut ring.chains[head as usize]);
        ring.free.extend(ids);
        Some((head as u16, len))
    }

    /// Number of interrupts since the last call.
    pub fn interrupts(&self) -> u64 {
        let count = self.device().irq_eventfd().read().unwrap_or(0);
        self.write(VIRTIO_MMIO_INTERRUPT_ACK, 3);
        count
    }

    /// Saves the device and restores its state into `device`, with the same guest memory.
    pub fn move_to<E: VirtioDevice>(self, device: E) -> Driver<E> {
        let state = {
            let mut transport = self.device();
            transport.pause();
            transport.save().unwrap()
        };
        let mut driver = Driver::on(device, self.memory.clone());
        driver.rings = self.rings;
        {
            let mut transport = driver.device();
            transport.restore(&state).unwrap();
            transport.resume();
        }
        driver.run();
        driver
    }
}

/// Every feature except VIRTIO_F_EVENT_IDX.
pub const WITHOUT_EVENT_IDX: u64 = !F_EVENT_IDX;
/// Only VIRTIO_F_VERSION_1, which is required.
pub const BARE: u64 = F_VERSION_1;
