//! The entropy device behind its transport.

use vm_memory::{Bytes, GuestAddress};

use super::Rng;
use crate::devices::virtio::testing::Driver;

const DATA: u64 = 0x20_0000;

fn rng() -> Driver<Rng> {
    Driver::started(Rng)
}

#[test]
fn the_entropy_device_bounds_each_buffer_and_each_call() {
    let mut driver = rng();
    for _ in 0..40 {
        driver.add(0, &[(DATA, 1 << 20, true)]);
    }
    driver.notify(0);
    let lens = |driver: &mut Driver<Rng>| -> Vec<u32> {
        std::iter::from_fn(|| driver.used(0))
            .map(|(_, len)| len)
            .collect()
    };
    driver.wait(0);
    let first = lens(&mut driver);
    assert_eq!(first.len(), 16);
    driver.run();
    let rest = lens(&mut driver);
    assert_eq!(rest.len(), 24);
    assert!(
        first
            .iter()
            .chain(&rest)
            .all(|len| (1..=4096).contains(len))
    );
}

#[test]
fn entropy_differs_between_buffers_of_a_chain() {
    let mut driver = rng();
    driver.submit(
        0,
        &[
            (DATA, 16, true),
            (DATA + 0x1000, 0, true),
            (DATA + 0x2000, 16, true),
        ],
    );
    assert_eq!(driver.used(0), Some((0, 32)));
    let first: [u8; 16] = driver.memory.read_obj(GuestAddress(DATA)).unwrap();
    let second: [u8; 16] = driver.memory.read_obj(GuestAddress(DATA + 0x2000)).unwrap();
    assert_ne!(first, [0; 16]);
    assert_ne!(first, second);
}

#[test]
fn a_chain_without_writable_buffers_is_returned_empty() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 16, false)]);
    assert_eq!(driver.used(0), Some((0, 0)));
    assert!(!driver.needs_reset());
}
