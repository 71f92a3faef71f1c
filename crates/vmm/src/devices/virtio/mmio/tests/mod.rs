//! The transport, with the entropy device behind it because it is the simplest.

mod malformed;
mod saving;

use proptest::prelude::*;
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};

use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::testing::{
    BARE, Driver, INDIRECT, MEMORY_SIZE, RING_SIZE, WITHOUT_EVENT_IDX,
};
use crate::devices::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use crate::devices::{BusDevice, Device};

const STATUS: u32 = VIRTIO_MMIO_STATUS;
const DATA: u64 = 0x20_0000;

fn rng() -> Driver<Rng> {
    Driver::started(Rng)
}

#[test]
fn identity_registers_are_those_of_the_specification() {
    let driver = Driver::new(Rng);
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(driver.read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_ID), 4);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 64);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    assert_eq!(
        driver.offered(),
        F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC
    );
}

#[test]
fn a_queue_that_does_not_exist_has_no_size() {
    let driver = Driver::new(Rng);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn registers_accept_only_whole_words() {
    let driver = Driver::new(Rng);
    let mut byte = [0xff];
    driver.device().read(0, &mut byte);
    assert_eq!(byte, [0]);
    driver.device().write(STATUS.into(), &[1]);
    assert_eq!(driver.read(STATUS), 0);
}

#[test]
fn features_without_version_1_are_not_accepted() {
    let mut driver = Driver::new(Rng);
    driver.negotiate(!F_VERSION_1);
    assert_eq!(driver.read(STATUS), 3);
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    let mut driver = Driver::new(Rng);
    driver.negotiate(0);
    for half in 0..2 {
        driver.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        driver.write(VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    }
    driver.write(STATUS, 0xb);
    assert_eq!(driver.read(STATUS), 3);
}

#[test]
fn driver_ok_without_features_ok_does_nothing() {
    let driver = Driver::new(Rng);
    driver.write(STATUS, 1);
    driver.write(STATUS, 3);
    driver.write(STATUS, 7);
    assert_eq!(driver.read(STATUS), 3);
}

#[test]
fn only_a_reset_clears_status_bits() {
    let driver = rng();
    driver.write(STATUS, 3);
    assert_eq!(driver.read(STATUS), 0xf);
}

#[test]
fn queues_are_set_up_only_between_features_ok_and_driver_ok() {
    let driver = Driver::new(Rng);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    let driver = rng();
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn a_buffer_is_filled_and_the_driver_interrupted() {
    let mut driver = rng();
    let head = driver.submit(0, &[(DATA, 64, true)]);
    assert_eq!(driver.used(0), Some((head, 64)));
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    assert_eq!(driver.interrupts(), 1);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn an_ioeventfd_notifies_like_the_register() {
    let mut driver = rng();
    driver.add(0, &[(DATA, 8, true)]);
    driver.device().notify_eventfds()[0].write(1).unwrap();
    driver.run();
    assert!(driver.used(0).is_some());
}

#[test]
fn event_idx_suppresses_interrupts() {
    let mut driver = rng();
    let avail = driver.avail_ring(0);
    let used_event = GuestAddress(avail + 4 + 2 * u64::from(RING_SIZE));
    driver.memory.write_obj(10u16, used_event).unwrap();
    driver.submit(0, &[(DATA, 8, true)]);
    assert_eq!(driver.interrupts(), 0);
    for _ in 0..10 {
        driver.submit(0, &[(DATA, 8, true)]);
    }
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn no_interrupt_flag_suppresses_interrupts() {
    let mut driver = Driver::started_with(Rng, WITHOUT_EVENT_IDX);
    let avail = driver.avail_ring(0);
    driver.memory.write_obj(1u16, GuestAddress(avail)).unwrap();
    driver.submit(0, &[(DATA, 8, true)]);
    assert_eq!(driver.interrupts(), 0);
    driver.memory.write_obj(0u16, GuestAddress(avail)).unwrap();
    driver.submit(0, &[(DATA, 8, true)]);
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn a_reset_while_active_clears_all_state() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 8, true)]);
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    driver.notify(0);
    driver.run();
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn an_indirect_chain_is_followed() {
    let mut driver = Driver::started_with(Rng, BARE | F_INDIRECT_DESC);
    driver.write_descriptor_at(DATA, 0, (DATA + 0x1000, 16, 3, 1));
    driver.write_descriptor_at(DATA, 1, (DATA + 0x2000, 16, 2, 0));
    driver.write_descriptor(0, 0, (DATA, 32, INDIRECT, 0));
    driver.publish(0, 0);
    driver.notify(0);
    driver.run();
    assert_eq!(driver.used(0), Some((0, 32)));
}

#[test]
fn the_acpi_node_has_id_window_and_interrupt() {
    let node = Driver::new(Rng).device().acpi_node();
    let has = |bytes: &[u8]| node.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"VR01"));
    assert!(has(b"LNRO0005\0"));
    // Memory32Fixed, writable, base, length (ACPI 6.5, 6.4.3.4).
    assert!(has(&[0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 0x10, 0, 0]));
    // Extended interrupt: consumer, edge, active high, exclusive; one, number 5 (6.4.3.6).
    assert!(has(&[0x89, 6, 0, 0b11, 1, 5, 0, 0, 0]));
}

proptest! {
    #[test]
    fn random_registers_never_panic(
        writes in prop::collection::vec((0u64..0x110, any::<u32>(), 0usize..5), 0..200)
    ) {
        let mut driver = rng();
        for (offset, value, len) in writes {
            let bytes = value.to_le_bytes();
            driver.device().write(offset & !3, &bytes[..len.min(4)]);
            driver.device().read(offset, &mut [0; 8][..len]);
            driver.run();
        }
    }
}
