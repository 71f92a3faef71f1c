//! A hostile driver for a virtio device behind its MMIO transport: the input is a list of steps, each an opcode and
//! its operands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloude_vmm::devices::virtio::{MmioSlot, MmioTransport, VirtioDevice, fuzzing};
use cloude_vmm::devices::{BusDevice, Device};
use cloude_vmm::memory::GuestMemory;
use event_manager::{EventManager, SubscriberOps};
use vm_memory::{Bytes, GuestAddress};

use crate::Input;

/// Guest memory in bytes: what a 16-bit address in units of 16 bytes reaches.
pub const MEMORY: usize = 1 << 20;
/// The size that a well-behaved handshake sets for each queue.
const RING: u16 = 16;
/// Registers of virtio-mmio (specification 1.2, section 4.2.2).
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_AVAIL: u64 = 0x90;
const QUEUE_USED: u64 = 0xa0;

/// A descriptor's flag: the device writes the buffer.
pub const WRITE: u16 = 2;

/// A device, its guest memory, its event loop, and the driver's ring positions.
pub struct Machine<D: VirtioDevice> {
    transport: Arc<Mutex<MmioTransport<D>>>,
    memory: GuestMemory,
    events: EventManager<Arc<Mutex<MmioTransport<D>>>>,
    available: [u16; 4],
}

fn ring(queue: u16) -> u64 {
    0x1000 * (1 + u64::from(queue))
}

impl<D: VirtioDevice> Machine<D> {
    /// The device before the driver's first access, with empty guest memory.
    pub fn new(device: D) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Self::on(device, memory)
    }

    fn on(device: D, memory: GuestMemory) -> Self {
        let slot = MmioSlot {
            base: 0xd000_0000,
            gsi: 5,
            uid: 0,
        };
        let transport = MmioTransport::new(device, memory.clone(), slot).unwrap();
        let transport = Arc::new(Mutex::new(transport));
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(Arc::clone(&transport));
        Self {
            transport,
            memory,
            events,
            available: [0; 4],
        }
    }

    /// The device behind its lock.
    pub fn device(&self) -> MutexGuard<'_, MmioTransport<D>> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, input: &mut Input) -> u16 {
        let queues = self.device().device().queue_sizes().len() as u16;
        u16::from(input.u8()) % queues
    }

    fn register(&self, offset: u64, value: u32) {
        self.device().write(offset, &value.to_le_bytes());
    }

    /// Writes guest memory, as far as it exists.
    pub fn poke(&self, address: u64, bytes: &[u8]) {
        // Short at the end of memory.
        let _ = self.memory.write(bytes, GuestAddress(address));
    }

    /// Reset, features, queues, DRIVER_OK: as a good driver does, so that the input need not find it.
    pub fn start(&mut self, features: u64) {
        for status in [0, 1, 3] {
            self.register(STATUS, status);
        }
        let offered = {
            let mut device = self.device();
            let mut half = |index: u32| {
                let mut bytes = [0; 4];
                device.write(0x14, &index.to_le_bytes());
                device.read(0x10, &mut bytes);
                u64::from(u32::from_le_bytes(bytes))
            };
            half(0) | half(1) << 32
        };
        let chosen = offered & (features | 1 << 32);
        for index in 0..2 {
            self.register(DRIVER_FEATURES_SEL, index);
            self.register(DRIVER_FEATURES, (chosen >> (32 * index)) as u32);
        }
        self.register(STATUS, 0xb);
        let queues = self.device().device().queue_sizes().len() as u16;
        for queue in 0..queues {
            let base = ring(queue) as u32;
            self.register(QUEUE_SEL, queue.into());
            self.register(QUEUE_NUM, RING.into());
            self.register(QUEUE_DESC, base);
            self.register(QUEUE_AVAIL, base + 0x400);
            self.register(QUEUE_USED, base + 0x800);
            self.register(QUEUE_READY, 1);
            self.poke(ring(queue) + 0x400, &[0; 4]);
        }
        self.available = [0; 4];
        self.register(STATUS, 0xf);
    }

    /// Writes a descriptor.
    pub fn describe(
        &self,
        queue: u16,
        index: u16,
        (address, len, flags, next): (u64, u32, u16, u16),
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.poke(ring(queue) + 16 * u64::from(index % RING), &bytes);
    }

    /// Makes a chain available and tells the device.
    pub fn publish(&mut self, queue: u16, head: u16) {
        let position = &mut self.available[usize::from(queue)];
        let entry = ring(queue) + 0x404 + 2 * u64::from(*position % RING);
        *position = position.wrapping_add(1);
        let index = position.to_le_bytes();
        self.poke(entry, &head.to_le_bytes());
        self.poke(ring(queue) + 0x402, &index);
        self.register(QUEUE_NOTIFY, queue.into());
    }

    /// One step of the driver, or of the host's owner of the VM (pause, save, restore into `twin`, resume).
    pub fn step(&mut self, input: &mut Input, twin: impl FnOnce() -> D) {
        match input.u8() % 10 {
            0 => self.start(u64::from(input.u8()) << 24 | u64::from(input.u16())),
            1 => self.register(u64::from(input.u8()) << 2, input.u32()),
            2 => {
                let (offset, len) = (input.u8().into(), usize::from(input.u8() % 9));
                self.device().read(offset, &mut vec![0; len]);
            }
            3 => {
                let address = u64::from(input.u16()) << 4;
                let len = input.u8().into();
                self.poke(address, input.take(len));
            }
            4 => {
                let queue = self.queue(input);
                let index = input.u8().into();
                // Mostly inside of memory, sometimes anywhere.
                let address = match input.u16() {
                    u16::MAX => input.u64(),
                    inside => u64::from(inside) << 4,
                };
                let len = match input.u16() {
                    u16::MAX => input.u32(),
                    short => short.into(),
                };
                let flags = (input.u8() & 7).into();
                let next = input.u8().into();
                self.describe(queue, index, (address, len, flags, next));
            }
            5 => {
                let queue = self.queue(input);
                let head = input.u8().into();
                self.publish(queue, head);
            }
            6 => self.register(QUEUE_NOTIFY, input.u8().into()),
            7 => self.device().pause(),
            8 => self.device().resume(),
            _ => self.fork(twin()),
        }
    }

    /// Saves the device and goes on with `device`, which takes over its state and the same guest memory.
    fn fork(&mut self, device: D) {
        let saved = {
            let mut old = self.device();
            old.pause();
            old.save().expect("a paused device can be saved")
        };
        let twin = Self::on(device, self.memory.clone());
        let restored = twin.device().restore(&saved);
        // A ring that the guest broke may be refused. A fork of it is then none: the VM goes on as it was.
        if restored.is_err() {
            return self.device().resume();
        }
        let again = twin
            .device()
            .save()
            .expect("a restored device can be saved");
        assert_eq!(
            again, saved,
            "a restored device has the state that was saved"
        );
        twin.device().resume();
        let available = self.available;
        *self = Self { available, ..twin };
    }

    /// Runs the event loop a few times, and checks that the device holds no more chains than its queues have.
    pub fn run(&mut self) {
        for _ in 0..4 {
            let ready = self
                .events
                .run_with_timeout(0)
                .expect("epoll_wait does not fail");
            for (held, size) in fuzzing::outstanding(&self.device()) {
                assert!(held <= size, "{held} chains are held of a queue of {size}");
            }
            if ready == 0 {
                break;
            }
        }
    }
}

/// Restores `state` into `device`, and lets the device run if it took it.
pub fn restored(device: impl VirtioDevice, state: &[u8]) {
    let mut machine = Machine::new(device);
    let taken = machine.device().restore(state).is_ok();
    if taken {
        machine.device().resume();
        machine.run();
    }
}
