//! The queues of one device, and the checked way to take buffers from them and give them back.

use std::io;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Interrupt;
use crate::memory::GuestMemory;

/// The driver wants no interrupt (spec section 2.7.6).
const AVAIL_F_NO_INTERRUPT: u16 = VRING_AVAIL_F_NO_INTERRUPT as u16;

/// A driver that broke the rules of a queue. The transport answers with `DEVICE_NEEDS_RESET`.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The ring itself is impossible, or lies outside the guest's memory.
    #[error("queue {queue} is malformed: {source}")]
    Ring {
        /// Its index.
        queue: usize,
        /// What the ring code said.
        source: virtio_queue::Error,
    },
    /// A chain that loops, ends in nowhere, or has more descriptors than the queue.
    #[error("queue {queue}: the chain at descriptor {head} does not end properly")]
    Endless {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// A descriptor that points outside the guest's memory.
    #[error(
        "queue {queue}: the chain at descriptor {head} points outside memory, to {address:#x}+{len:#x}"
    )]
    OutOfRange {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
        /// Where it points.
        address: u64,
        /// How far.
        len: u32,
    },
    /// A device-readable descriptor after a device-writable one (spec section 2.7.4.2).
    #[error(
        "queue {queue}: the chain at descriptor {head} has readable buffers behind writable ones"
    )]
    Order {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// More chains at once than the queue has descriptors: some descriptor was made available again before
    /// the device returned it.
    #[error("queue {queue}: more chains are available than the queue has descriptors")]
    Overfull {
        /// The queue's index.
        queue: usize,
    },
    /// A device-readable descriptor in a queue whose buffers the device only writes.
    #[error(
        "queue {queue}: the chain at descriptor {head} has readable buffers in a receive queue"
    )]
    Readable {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// A chain that is too short for what every packet of the device has.
    #[error("queue {queue}: the chain at descriptor {head} is too short for a packet")]
    Short {
        /// The queue's index.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
    },
    /// A buffer that was in range cannot be accessed.
    #[error("guest memory cannot be accessed: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// One stretch of guest memory, checked to lie inside it, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts.
    pub address: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// A chain of buffers that the driver made available.
#[derive(Debug)]
pub struct Chain {
    /// The first descriptor, to give the chain back by.
    pub head: u16,
    /// What the device reads, in order.
    pub readable: Vec<Segment>,
    /// What the device writes, in order.
    pub writable: Vec<Segment>,
}

impl Chain {
    /// Bytes that the device may read.
    pub fn readable_len(&self) -> usize {
        total(&self.readable)
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> usize {
        total(&self.writable)
    }
}

fn total(segments: &[Segment]) -> usize {
    segments.iter().map(|s| s.len as usize).sum()
}

/// The queues, the memory that they lie in, and the interrupt.
pub struct Rings {
    pub(super) queues: Vec<Queue>,
    /// Whether chains were given back since the last [`Rings::flush`].
    pushed: Vec<bool>,
    notify: Vec<EventFd>,
    memory: GuestMemory,
    interrupt: Interrupt,
}

impl Rings {
    /// Queues of at most these sizes, not ready yet.
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

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The device's interrupt.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// How many descriptors the driver has given a queue.
    pub fn size(&self, queue: usize) -> usize {
        usize::from(self.queues[queue].size())
    }

    pub(super) fn notify_eventfds(&self) -> &[EventFd] {
        &self.notify
    }

    /// Has the event loop come back to a queue: for work that was cut short.
    pub fn kick(&self, queue: usize) {
        if let Some(event) = self.notify.get(queue) {
            // A full counter means that the event loop is due to come already.
            let _ = event.write(1);
        }
    }

    /// How many chains the device holds: popped, and neither pushed to the used ring nor unpopped.
    ///
    /// Both ring positions count chains, so their distance is this number. It needs no counter of its own,
    /// and a snapshot, which has the positions, has it too.
    pub fn outstanding(&self, queue: usize) -> usize {
        let ring = &self.queues[queue];
        usize::from(ring.next_avail().wrapping_sub(ring.next_used()))
    }

    /// Takes the next chain, `None` if the driver has put no more.
    ///
    /// A device never holds more chains than the queue has descriptors. Each chain takes at least one, so a
    /// driver that keeps the rules cannot make more available.
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
        let mut chain = Chain {
            head,
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let mut count = 0;
        let mut ended = false;
        for descriptor in descriptors {
            count += 1;
            // The driver may not make a chain longer than the queue, indirect or not (2.7.5.3.1).
            if count > size {
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
            Ok(Some(chain))
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

    /// Puts the last `count` chains that were popped back, as if they had not been.
    pub fn unpop(&mut self, queue: usize, count: usize) {
        for _ in 0..count {
            self.queues[queue].go_to_previous_position();
        }
    }

    /// Gives a chain back, with `len` bytes written from its start.
    pub fn push_used(&mut self, queue: usize, head: u16, len: usize) -> Result<(), RingError> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.pushed[queue] = true;
        self.queues[queue]
            .add_used(&self.memory, head, len)
            .map_err(|source| RingError::Ring { queue, source })
    }

    /// Interrupts the driver if it wants to know of what was given back.
    pub fn flush(&mut self, queue: usize) -> Result<(), RingError> {
        self.flush_all(&[queue])
    }

    /// As [`Rings::flush`] for each, with one interrupt: the driver looks at every queue then.
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
            // virtio-queue answers "always" here; the driver's flag is the older way to say no.
            let flags: u16 = self
                .memory
                .load(GuestAddress(ring.avail_ring()), Ordering::SeqCst)?;
            return Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT == 0);
        }
        ring.needs_notification(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })
    }

    /// The device is about to look: the driver need not notify.
    pub fn disable_notification(&mut self, queue: usize) -> Result<(), RingError> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(());
        }
        ring.disable_notification(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })
    }

    /// The device is done looking. `true` if the driver put something meanwhile: look again.
    pub fn enable_notification(&mut self, queue: usize) -> Result<bool, RingError> {
        let ring = &mut self.queues[queue];
        if !ring.ready() {
            return Ok(false);
        }
        ring.enable_notification(&self.memory)
            .map_err(|source| RingError::Ring { queue, source })
    }
}
