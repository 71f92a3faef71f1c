//! Compares [`Rings`] with a model of a split virtqueue that is written from the spec (2.7): plain lists instead of
//! guest memory, and no code of virtio-queue.

use std::collections::VecDeque;

use proptest::prelude::*;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::queue::{RingError, Rings, Segment};
use crate::memory::GuestMemory;

const SIZE: u16 = 4;
const MEMORY: u64 = 1 << 16;
const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
/// The indirect table that steps write.
const INDIRECT_TABLE: u64 = 0x4000;
/// Buffers, which nobody writes: zeros.
const BUFFERS: u64 = 0x8000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

/// The result of a pop.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Popped {
    Nothing,
    /// Head, readable and writable buffers.
    Chain(u16, Vec<(u64, u32)>, Vec<(u64, u32)>),
    /// The name of the error's variant.
    Refused(&'static str),
}

#[derive(Clone, Debug)]
enum Step {
    /// Write a descriptor.
    Describe(u16, Descriptor),
    /// Write a descriptor of the indirect table.
    DescribeIndirect(u16, Descriptor),
    /// Make a chain available.
    Publish(u16),
    /// Set the available ring's index, as a broken driver may.
    Jump(u16),
    Pop,
    /// Return the oldest chain with this many bytes.
    Return(u32),
    /// Make the newest chain available again.
    Unpop,
}

/// The queue as the spec describes it.
struct Model {
    table: Vec<Descriptor>,
    indirect: Vec<Descriptor>,
    /// The available ring, and its index.
    avail: Vec<u16>,
    avail_index: u16,
    /// Chains that were popped and returned so far.
    popped: u16,
    returned: u16,
}

impl Model {
    fn new() -> Self {
        let nothing = vec![(0, 0, 0, 0); SIZE.into()];
        Self {
            table: nothing.clone(),
            indirect: nothing,
            avail: vec![0; SIZE.into()],
            avail_index: 0,
            popped: 0,
            returned: 0,
        }
    }

    fn held(&self) -> u16 {
        self.popped.wrapping_sub(self.returned)
    }

    fn pop(&mut self) -> Popped {
        let waiting = self.avail_index.wrapping_sub(self.popped);
        if waiting == 0 {
            return Popped::Nothing;
        }
        // More entries than the ring has (2.7.6): the index is not one that a driver reaches.
        if waiting > SIZE {
            return Popped::Refused("Ring");
        }
        if self.held() >= SIZE {
            return Popped::Refused("Overfull");
        }
        let head = self.avail[usize::from(self.popped % SIZE)];
        self.popped = self.popped.wrapping_add(1);
        self.chain(head)
    }

    /// Follows a chain (2.7.5), possibly into one indirect table (2.7.5.3).
    fn chain(&self, head: u16) -> Popped {
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let (mut table, mut at, mut length) = (self.table.clone(), head, 0);
        let mut is_indirect = false;
        loop {
            let Some(&(address, len, flags, next)) = table.get(usize::from(at)) else {
                return Popped::Refused("Endless");
            };
            if flags & INDIRECT != 0 {
                // Whole descriptors, and no table in a table.
                if is_indirect || len % 16 != 0 {
                    return Popped::Refused("Endless");
                }
                (table, at, is_indirect) = (self.indirect_table(address, len / 16), 0, true);
                continue;
            }
            if length == SIZE {
                return Popped::Refused("Endless");
            }
            length += 1;
            let is_writable = flags & WRITE != 0;
            if !is_writable && !writable.is_empty() {
                return Popped::Refused("Order");
            }
            if len > 0 && address.saturating_add(len.into()) > MEMORY {
                return Popped::Refused("OutOfRange");
            }
            let buffers = if is_writable {
                &mut writable
            } else {
                &mut readable
            };
            buffers.extend((len > 0).then_some((address, len)));
            if flags & NEXT == 0 {
                return Popped::Chain(head, readable, writable);
            }
            at = next;
        }
    }

    /// The table at an address: the one that steps write, or the empty memory of buffers.
    fn indirect_table(&self, address: u64, count: u32) -> Vec<Descriptor> {
        match address {
            INDIRECT_TABLE => self.indirect[..count as usize].to_vec(),
            _ => vec![(0, 0, 0, 0); count as usize],
        }
    }
}

/// [`Rings`] with one queue in guest memory.
struct Real {
    rings: Rings,
    memory: GuestMemory,
}

impl Real {
    fn new() -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let mut rings = Rings::new(&[SIZE], memory.clone()).unwrap();
        let queue = &mut rings.queues[0];
        queue.set_size(SIZE);
        queue.set_desc_table_address(Some(TABLE as u32), None);
        queue.set_avail_ring_address(Some(AVAIL as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_ready(true);
        Self { rings, memory }
    }

    fn write<T: vm_memory::ByteValued>(&self, value: T, at: u64) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn describe(&self, table: u64, index: u16, (address, len, flags, next): Descriptor) {
        let at = table + 16 * u64::from(index);
        self.write(address, at);
        self.write(len, at + 8);
        self.write(flags, at + 12);
        self.write(next, at + 14);
    }

    fn pop(&mut self) -> Popped {
        let plain =
            |segments: &[Segment]| segments.iter().map(|it| (it.address.0, it.len)).collect();
        match self.rings.pop(0) {
            Ok(None) => Popped::Nothing,
            Ok(Some(chain)) => {
                Popped::Chain(chain.head, plain(&chain.readable), plain(&chain.writable))
            }
            Err(RingError::Ring { .. }) => Popped::Refused("Ring"),
            Err(RingError::Overfull { .. }) => Popped::Refused("Overfull"),
            Err(RingError::Endless { .. }) => Popped::Refused("Endless"),
            Err(RingError::OutOfRange { .. }) => Popped::Refused("OutOfRange"),
            Err(RingError::Order { .. }) => Popped::Refused("Order"),
            Err(other) => panic!("{other}"),
        }
    }

    /// The used ring: its index, and the entry before it.
    fn used(&self) -> (u16, [u32; 2]) {
        let index: u16 = self.memory.read_obj(GuestAddress(USED + 2)).unwrap();
        let last = u64::from(index.wrapping_sub(1) % SIZE);
        let entry = GuestAddress(USED + 4 + 8 * last);
        (index, self.memory.read_obj(entry).unwrap())
    }
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let buffers = BUFFERS..BUFFERS + 0x1000;
    let address =
        prop_oneof![8 => buffers.clone(), 1 => MEMORY - 64..MEMORY + 64, 1 => any::<u64>()];
    let len = prop_oneof![6 => 0_u32..64, 1 => any::<u32>()];
    let next = prop_oneof![12 => 0..SIZE, 1 => any::<u16>()];
    let plain = (address, len, 0_u16..4, next.clone());
    let table = prop_oneof![4 => Just(INDIRECT_TABLE), 1 => buffers];
    let size = prop_oneof![8 => (0..=u32::from(SIZE)).prop_map(|it| 16 * it), 1 => 0..16 * u32::from(SIZE)];
    let indirect = (table, size, INDIRECT..2 * INDIRECT, next);
    prop_oneof![6 => plain, 1 => indirect]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SIZE, descriptor()).prop_map(|(at, it)| Step::Describe(at, it)),
        2 => (0..SIZE, descriptor()).prop_map(|(at, it)| Step::DescribeIndirect(at, it)),
        8 => prop_oneof![12 => 0..SIZE, 1 => any::<u16>()].prop_map(Step::Publish),
        1 => any::<u16>().prop_map(Step::Jump),
        8 => Just(Step::Pop),
        4 => any::<u32>().prop_map(Step::Return),
        2 => Just(Step::Unpop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn rings_do_what_the_specifications_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let (mut model, mut real) = (Model::new(), Real::new());
        // Heads of the chains that the device holds, the oldest first.
        let mut held: VecDeque<u16> = VecDeque::new();
        for step in steps {
            match step {
                Step::Describe(at, descriptor) => {
                    model.table[usize::from(at)] = descriptor;
                    real.describe(TABLE, at, descriptor);
                }
                Step::DescribeIndirect(at, descriptor) => {
                    model.indirect[usize::from(at)] = descriptor;
                    real.describe(INDIRECT_TABLE, at, descriptor);
                }
                Step::Publish(head) => {
                    let slot = model.avail_index % SIZE;
                    model.avail[usize::from(slot)] = head;
                    model.avail_index = model.avail_index.wrapping_add(1);
                    real.write(head, AVAIL + 4 + 2 * u64::from(slot));
                    real.write(model.avail_index, AVAIL + 2);
                }
                Step::Jump(index) => {
                    model.avail_index = index;
                    real.write(index, AVAIL + 2);
                }
                Step::Pop => {
                    let popped = model.pop();
                    prop_assert_eq!(real.pop(), popped.clone());
                    match popped {
                        Popped::Chain(head, ..) => held.push_back(head),
                        Popped::Nothing => {}
                        // The transport sets DEVICE_NEEDS_RESET.
                        Popped::Refused(_) => break,
                    }
                }
                Step::Return(len) => {
                    if let Some(head) = held.pop_front() {
                        model.returned = model.returned.wrapping_add(1);
                        real.rings.push_used(0, head, len as usize).unwrap();
                        prop_assert_eq!(real.used(), (model.returned, [head.into(), len]));
                    }
                }
                Step::Unpop => {
                    if held.pop_back().is_some() {
                        model.popped = model.popped.wrapping_sub(1);
                        real.rings.unpop(0, 1);
                    }
                }
            }
            prop_assert_eq!(real.rings.outstanding(0), usize::from(model.held()));
            prop_assert!(real.rings.outstanding(0) <= usize::from(SIZE));
        }
    }
}
