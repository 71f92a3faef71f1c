//! Random descriptor tables and rings: a device must neither panic nor hang, and must not hold more chains than the
//! queue has descriptors.

use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;
use vm_memory::{Bytes, GuestAddress};

use super::VirtioDevice;
use super::net::{EgressSpec, Net, NetConfig, NetLimits};
use super::rng::Rng;
use super::testing::{Driver, MEMORY_SIZE, RING_SIZE};
use super::vsock::{Vsock, VsockConfig};

/// Address, length, flags, next.
type Raw = (u64, u32, u16, u16);

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        // The rings' addresses: a buffer may overlap them.
        4 => 0..MEMORY_SIZE as u64,
        2 => 0x10000u64..0x50000,
        1 => any::<u64>(),
        1 => Just(MEMORY_SIZE as u64 - 1),
    ]
}

fn raw() -> impl Strategy<Value = Raw> {
    let len = prop_oneof![4 => 0u32..5000, 1 => any::<u32>(), 1 => Just(44u32), 1 => Just(16 * 8)];
    let next = prop_oneof![8 => 0u16..RING_SIZE, 1 => any::<u16>()];
    (
        address(),
        len,
        prop_oneof![8 => 0u16..8, 1 => any::<u16>()],
        next,
    )
}

#[derive(Clone, Debug)]
struct Attack {
    queue: usize,
    table: Vec<Raw>,
    heads: Vec<u16>,
    avail_index: Option<u16>,
    words: Vec<(u64, u64)>,
}

/// One small buffer, made available again before the device has returned it.
fn flood() -> impl Strategy<Value = Attack> {
    (0usize..3, 0u32..40, 0u16..4, 1..usize::from(RING_SIZE)).prop_map(
        |(queue, len, flags, count)| Attack {
            queue,
            table: vec![(0x20_0000, len, flags, 0)],
            heads: vec![0; count],
            avail_index: None,
            words: Vec::new(),
        },
    )
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![random(), flood()]
}

fn random() -> impl Strategy<Value = Attack> {
    (
        0usize..3,
        prop::collection::vec(raw(), 1..64),
        prop::collection::vec(prop_oneof![9 => 0u16..RING_SIZE, 1 => any::<u16>()], 1..32),
        prop::option::weighted(0.1, any::<u16>()),
        prop::collection::vec((0..MEMORY_SIZE as u64 - 8, any::<u64>()), 0..16),
    )
        .prop_map(|(queue, table, heads, avail_index, words)| Attack {
            queue,
            table,
            heads,
            avail_index,
            words,
        })
}

fn run<D: VirtioDevice>(device: D, attacks: &[Attack]) {
    let queues = device.queue_sizes().len();
    let mut driver = Driver::started(device);
    for attack in attacks {
        let queue = attack.queue % queues;
        for (at, word) in &attack.words {
            driver.memory.write_obj(*word, GuestAddress(*at)).unwrap();
        }
        for (index, raw) in (0..).zip(&attack.table) {
            driver.write_descriptor(queue, index, *raw);
        }
        for head in &attack.heads {
            driver.publish(queue, *head);
        }
        if let Some(index) = attack.avail_index {
            let at = driver.avail_ring(queue) + 2;
            driver.memory.write_obj(index, GuestAddress(at)).unwrap();
        }
        driver.notify(queue);
        // A malformed ring may give a device endless work, but each call must return.
        for _ in 0..64 {
            driver.wait(0);
            for queue in 0..queues {
                let device = driver.device();
                assert!(device.rings.outstanding(queue) <= usize::from(RING_SIZE));
            }
        }
    }
    driver.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
    driver.run();
}

proptest! {
    #[test]
    fn the_entropy_device_survives(attacks in prop::collection::vec(attack(), 1..6)) {
        run(Rng, &attacks);
    }

    #[test]
    fn the_socket_device_survives(attacks in prop::collection::vec(attack(), 1..6)) {
        let config = VsockConfig { guest_cid: 3, ready_port: 1 };
        run(Vsock::new(config).unwrap(), &attacks);
    }

    #[test]
    fn the_network_device_survives(attacks in prop::collection::vec(attack(), 1..6)) {
        let (wire, theirs) = UnixDatagram::pair().unwrap();
        let config = NetConfig { mac: [2; 6], mtu: 1500 };
        let device = Net::on(theirs.into(), config, false).unwrap();
        for len in [0, 1, 12, 100, 1500] {
            wire.send(&vec![7; len]).unwrap();
        }
        run(device, &attacks);
    }

    #[test]
    fn the_confined_network_device_survives(attacks in prop::collection::vec(attack(), 1..6)) {
        let (wire, theirs) = UnixDatagram::pair().unwrap();
        let config = NetConfig { mac: [2; 6], mtu: 1500 };
        let limits = NetLimits { packets_per_s: 5, bytes_per_s: 1000, connections_per_s: 2 };
        let device = Net::on(theirs.into(), config, false).unwrap();
        let device = device.with_egress(EgressSpec::default()).with_limits(&limits).unwrap();
        for len in [0, 1, 12, 100, 1500] {
            wire.send(&vec![7; len]).unwrap();
        }
        run(device, &attacks);
    }
}
