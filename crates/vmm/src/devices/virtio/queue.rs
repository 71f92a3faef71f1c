//! [`Rings`]: the virtqueues of one device. Chains are checked when they are popped.

use std::io;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Interrupt;
use crate::memory::GuestMemory;

/// VIRTQ_AVAIL_F_NO_INTERRUPT (spec section 2.7.6).
const AVAIL_F_NO_INTERRUPT: u16 = VRING_AVAIL_F_NO_INTERRUPT as u16;

/// A violation of the spec by the driver. The transport sets `DEVICE_NEEDS_RESET`.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The ring is malformed or lies outside guest memory.
    #[error("queue {queue} is malformed: {source}")]
    Ring {
        /// The queue's index.
        queue: usize,
        /// The error of virtio-queue.
        source: virtio_queue::Error,
    },
    /// A chain that loops, leaves the descriptor table, or has more descriptors than the queue.
    #[error("queue {queue}: the chain at descriptor {head} has no valid end")]
    Endless {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// A descriptor that points outside guest memory.
    #[error(
        "queue {queue}: the chain at descriptor {head} points outside guest memory, to {address:#x}+{len:#x}"
    )]
    OutOfRange {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
        /// The descriptor's address.
        address: u64,
        /// The descriptor's length in bytes.
        len: u32,
    },
    /// A device-readable descriptor after a device-writable one (spec section 2.7.4.2).
    #[error(
        "queue {queue}: the chain at descriptor {head} has readable buffers after writable ones"
    )]
    Order {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// More chains in use than the queue has descriptors: the driver made a descriptor available again before the
    /// device returned it.
    #[error("queue {queue}: more chains are available than the queue has descriptors")]
    Overfull {
        /// The queue's index.
        queue: usize,
    },
    /// A device-readable descriptor in a queue of device-writable buffers.
    #[error(
        "queue {queue}: the chain at descriptor {head} has readable buffers in a receive queue"
    )]
    Readable {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// A chain that is shorter than the header of the device's packets.
    #[error("queue {queue}: the chain at descriptor {head} is too short for a packet")]
    Short {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// Access to a checked buffer failed.
    #[error("guest memory cannot be accessed: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// A non-empty range that was checked to lie in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its guest-physical address.
    pub address: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// A descriptor chain that the driver made available.
#[derive(Debug)]
pub struct Chain {
    /// The index of the first descriptor, for [`Rings::push_used`].
    pub head: u16,
    /// Device-readable buffers, in order.
    pub readable: Vec<Segment>,
    /// Device-writable buffers, in order.
    pub writable: Vec<Segment>,
}

impl Chain {
    /// Total length of the readable buffers in bytes.
    pub fn readable_len(&self) -> usize {
        total(&self.readable)
    }

    /// Total length of the writable buffers in bytes.
    pub fn writable_len(&self) -> usize {
        total(&self.writable)
    }
}

fn total(segments: &[Segment]) -> usize {
    segments.iter().map(|s| s.len as usize).sum()
}

/// The virtqueues of a device, guest memory, and the device's interrupt.
pub struct Rings {
    pub(super) queues: Vec<Queue>,
    /// True if chains were returned since the last [`Rings::flush`].
    pushed: Vec<bool>,
    notify: Vec<EventFd>,
    memory: GuestMemory,
    interrupt: Interrupt,
}

impl Rings {
    /// Queues with these maximum sizes, not ready yet.
    pub(super) fn new(sizes: &[u16], memory: GuestMemory) -> io::Result<Self> {
        let queues = sizes
            .iter()
            .map(|size| Queue::new(*size))
            .collect::<Result<_, _>>();
        Ok(Self {
            queues: queues.map_err(io::Error::other)?,
            pushed: vec![false; sizes.len()],
            notify: sizes
                .iter()
                .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
                .collect::<Result<_, _>>()?,
            memory,
            interrupt: Interrupt::new()?,
        })
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The device's interrupt.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The size of a queue in descriptors, as set by the driver.
    pub fn size(&self, queue: usize) -> usize {
        usize::from(self.queues[queue].size())
    }

    pub(super) fn notify_eventfds(&self) -> &[EventFd] {
        &self.notify
    }

    /// Makes the event loop process a queue again, after a device has stopped at its limit per call.
    pub fn kick(&self, queue: usize) {
        if let Some(event) = self.notify.get(queue) {
            // A full counter means that the event loop has a wake-up pending.
            let _ = event.write(1);
        }
    }

    /// The number of chains that the device holds: popped, and neither returned nor unpopped.
    ///
    /// It is the distance of the two ring positions, which both count chains. So it needs no counter that could drift,
    /// and a snapshot contains it.
    pub fn outstanding(&self, queue: usize) -> usize {
        let ring = &self.queues[queue];
        usize::from(ring.next_avail().wrapping_sub(ring.next_used()))
    }

    /// Takes the next available chain; `None` if there is none.
    ///
    /// A device holds at most as many chains as the queue has descriptors. A conforming driver cannot make more
    /// available, since each chain uses at least one descriptor.
    pub fn pop(&mut self, queue: usize) -> Result<Option<Chain>, RingError> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(None);
        }
        let size = usize::from(ring.size());
        let held = usize::from(ring.next_avail().wrapping_sub(ring.next_used()));
        let next = ring
            .iter(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })?
            .next();
        let Some(descriptors) = next else {
            return Ok(None);
        };
        if held >= size {
            ring.go_to_previous_position();
            return Err(RingError::Overfull { queue });
        }
        let head = descriptors.head_index();
        self.check_chain(queue, head, descriptors).map(Some)
    }

    /// Collects the buffers of a chain. The chain must end, be no longer than the queue, lie in guest memory, and have
    /// its writable buffers last.
    fn check_chain(
        &self,
        queue: usize,
        head: u16,
        descriptors: impl Iterator<Item = Descriptor>,
    ) -> Result<Chain, RingError> {
        let mut chain = Chain {
            head,
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let mut ended = false;
        for (index, descriptor) in descriptors.enumerate() {
            // A chain must not be longer than the queue, indirect or not (2.7.5.3.1).
            if index >= self.size(queue) {
                return Err(RingError::Endless { queue, head });
            }
            ended = !descriptor.has_next();
            let segment = Segment {
                address: descriptor.addr(),
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                self.check(queue, head, segment, Permissions::Write)?;
                chain.writable.extend((segment.len > 0).then_some(segment));
            } else if chain.writable.is_empty() {
                self.check(queue, head, segment, Permissions::Read)?;
                chain.readable.extend((segment.len > 0).then_some(segment));
            } else {
                return Err(RingError::Order { queue, head });
            }
        }
        if ended {
            Ok(chain)
        } else {
            Err(RingError::Endless { queue, head })
        }
    }

    fn check(
        &self,
        queue: usize,
        head: u16,
        segment: Segment,
        access: Permissions,
    ) -> Result<(), RingError> {
        let Segment { address, len } = segment;
        if len == 0 || self.memory.check_range(address, len as usize, access) {
            Ok(())
        } else {
            Err(RingError::OutOfRange {
                queue,
                head,
                address: address.0,
                len,
            })
        }
    }

    /// Makes the last `count` popped chains available again.
    pub fn unpop(&mut self, queue: usize, count: usize) {
        for _ in 0..count {
            self.queues[queue].go_to_previous_position();
        }
    }

    /// Returns a chain with `len` bytes written from its start.
    pub fn push_used(&mut self, queue: usize, head: u16, len: usize) -> Result<(), RingError> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.pushed[queue] = true;
        self.queues[queue]
            .add_used(&self.memory, head, len)
            .map_err(|source| RingError::Ring { queue, source })
    }

    /// Interrupts the driver if chains were returned and it wants the interrupt.
    pub fn flush(&mut self, queue: usize) -> Result<(), RingError> {
        self.flush_all(&[queue])
    }

    /// [`Rings::flush`] for several queues with one interrupt: the driver's handler checks every queue.
    pub fn flush_all(&mut self, queues: &[usize]) -> Result<(), RingError> {
        let mut wanted = false;
        for &queue in queues {
            wanted |= std::mem::take(&mut self.pushed[queue]) && self.wants_interrupt(queue)?;
        }
        if wanted {
            self.interrupt.signal_queue();
        }
        Ok(())
    }

    fn wants_interrupt(&mut self, queue: usize) -> Result<bool, RingError> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(false);
        }
        if !ring.event_idx_enabled() {
            // virtio-queue ignores this flag.
            let flags: u16 = self
                .memory
                .load(GuestAddress(ring.avail_ring()), Ordering::SeqCst)?;
            return Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT == 0);
        }
        ring.needs_notification(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })
    }

    /// Suppresses the driver's notifications while the device processes the queue.
    pub fn disable_notification(&mut self, queue: usize) -> Result<(), RingError> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(());
        }
        ring.disable_notification(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })
    }

    /// Enables the driver's notifications. Returns true if chains arrived meanwhile, which must be processed now.
    pub fn enable_notification(&mut self, queue: usize) -> Result<bool, RingError> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(false);
        }
        ring.enable_notification(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })
    }
}
