//! The transport, with the entropy device behind it for its simplicity.

use proptest::prelude::*;
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};

use super::TransportState;
use crate::devices::state::{decode, encode};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::testing::{
    BARE, Driver, INDIRECT, MEMORY_SIZE, RING_SIZE, WITHOUT_EVENT_IDX,
};
use crate::devices::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use crate::devices::{BusDevice, Device, StateError};

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
fn registers_take_only_whole_words() {
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
fn status_bits_are_not_cleared_one_by_one() {
    let driver = rng();
    driver.write(STATUS, 3);
    assert_eq!(driver.read(STATUS), 0xf);
}

#[test]
fn queues_are_not_set_up_before_features_ok_nor_after_driver_ok() {
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
fn a_queue_outside_memory_needs_a_reset() {
    let mut driver = Driver::new(Rng);
    driver.negotiate(u64::MAX);
    driver.set_up_queues();
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.write(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0x7fff_ffff);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    driver.write(STATUS, 0xf);
    assert!(driver.needs_reset());
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2);
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
fn an_ioeventfd_is_as_good_as_the_register() {
    let mut driver = rng();
    driver.add(0, &[(DATA, 8, true)]);
    driver.device().notify_eventfds()[0].write(1).unwrap();
    driver.run();
    assert!(driver.used(0).is_some());
}

#[test]
fn event_idx_suppresses_interrupts_that_nobody_wants() {
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
fn the_old_flag_suppresses_interrupts_without_event_idx() {
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
fn reset_while_active_forgets_everything() {
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

/// Makes descriptor 0 what is given and expects the device to give up on the queue.
fn expect_fault(raw: (u64, u32, u16, u16), what: &str) {
    let mut driver = rng();
    driver.write_descriptor(0, 0, raw);
    driver.publish(0, 0);
    driver.notify(0);
    driver.run();
    assert!(driver.needs_reset());
    let fault = driver.device().fault.clone().unwrap();
    assert!(fault.contains(what), "{fault}");
    assert_ne!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 0);
    // A reset makes it whole again.
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);
}

#[test]
fn a_chain_that_loops_needs_a_reset() {
    expect_fault((DATA, 8, 3, 0), "does not end");
}

#[test]
fn a_chain_that_leads_out_of_the_table_needs_a_reset() {
    expect_fault((DATA, 8, 3, 999), "does not end");
}

#[test]
fn a_buffer_outside_memory_needs_a_reset() {
    expect_fault((MEMORY_SIZE as u64 - 4, 8, 2, 0), "outside memory");
    expect_fault((u64::MAX - 4, 8, 2, 0), "outside memory");
    expect_fault((DATA, u32::MAX, 2, 0), "outside memory");
}

#[test]
fn an_indirect_table_outside_memory_needs_a_reset() {
    expect_fault((u64::MAX - 64, 64, INDIRECT, 0), "does not end");
    expect_fault((DATA, 17, INDIRECT, 0), "does not end");
    expect_fault((DATA, 0, INDIRECT, 0), "does not end");
}

#[test]
fn an_indirect_table_longer_than_the_queue_needs_a_reset() {
    let mut driver = rng();
    for index in 0..RING_SIZE + 1 {
        driver.write_descriptor_at(DATA, index, (DATA, 1, 3, index + 1));
    }
    driver.write_descriptor(0, 0, (DATA, 16 * u32::from(RING_SIZE + 1), INDIRECT, 0));
    driver.publish(0, 0);
    driver.notify(0);
    driver.run();
    assert!(driver.needs_reset());
}

#[test]
fn readable_behind_writable_needs_a_reset() {
    let mut driver = rng();
    driver.write_descriptor(0, 0, (DATA, 8, 3, 1));
    driver.write_descriptor(0, 1, (DATA, 8, 0, 0));
    driver.publish(0, 0);
    driver.notify(0);
    driver.run();
    assert!(driver.needs_reset());
}

#[test]
fn an_index_outside_the_table_needs_a_reset() {
    let mut driver = rng();
    driver.publish(0, RING_SIZE);
    driver.notify(0);
    driver.run();
    assert!(driver.needs_reset());
}

#[test]
fn more_available_than_the_queue_holds_needs_a_reset() {
    let mut driver = rng();
    let avail = driver.avail_ring(0);
    driver
        .memory
        .write_obj(RING_SIZE + 1, GuestAddress(avail + 2))
        .unwrap();
    driver.notify(0);
    driver.run();
    assert!(driver.needs_reset());
}

#[test]
fn while_paused_nothing_is_touched_and_resume_makes_up_for_it() {
    let mut driver = rng();
    driver.device().pause();
    driver.submit(0, &[(DATA, 8, true)]);
    assert_eq!(driver.used(0), None);
    assert_eq!(driver.interrupts(), 0);
    driver.device().resume();
    driver.run();
    assert!(driver.used(0).is_some());
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn a_restored_device_goes_on_where_the_saved_one_stopped() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 8, true)]);
    driver.used(0);
    // Notified, but not worked on before the save: the restore finds it.
    driver.add(0, &[(DATA, 16, true)]);
    let mut driver = driver.move_to(Rng);
    assert_eq!(driver.used(0), Some((1, 16)));
    assert_eq!(driver.read(STATUS), 0xf);
    let head = driver.submit(0, &[(DATA, 32, true)]);
    assert_eq!(driver.used(0), Some((head, 32)));
}

/// The error of a device that restores a saved state after `change`.
fn refused(change: impl Fn(&mut TransportState)) -> StateError {
    let saved = rng().device().save().unwrap();
    let mut state: TransportState = decode("rng", &saved).unwrap();
    change(&mut state);
    let bytes = encode("rng", &state).unwrap();
    Driver::new(Rng).device().restore(&bytes).unwrap_err()
}

#[test]
fn an_impossible_state_is_refused() {
    let changes: [(fn(&mut TransportState), &str); 6] = [
        (|state| state.queues.clear(), "0 queues"),
        (|state| state.driver_features = 1, "negotiated features 0x1"),
        (|state| state.status = 0x100, "status 0x100"),
        (|state| state.device = vec![1], "the device has no state"),
        (|state| state.queues[0].next_avail = 3, "chains in use"),
        (|state| state.queues[0].desc_table = !15, "queue 0"),
    ];
    for (change, expected) in changes {
        let error = refused(change);
        assert!(matches!(error, StateError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_truncated_state_is_refused() {
    let saved = rng().device().save().unwrap();
    let error = Driver::new(Rng).device().restore(&saved[..3]).unwrap_err();
    assert!(matches!(error, StateError::Format { .. }), "{error}");
}

#[test]
fn the_acpi_node_names_the_driver_the_window_and_the_interrupt() {
    let node = Driver::new(Rng).device().acpi_node();
    let has = |bytes: &[u8]| node.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"VR01"));
    assert!(has(b"LNRO0005\0"));
    // Memory32Fixed, writable, base, length (ACPI 6.5, 6.4.3.4).
    assert!(has(&[0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 0x10, 0, 0]));
    // Extended interrupt: consumer, edge, active high, exclusive; one, number 5 (6.4.3.6).
    assert!(has(&[0x89, 6, 0, 0b11, 1, 5, 0, 0, 0]));
}

#[test]
fn the_entropy_device_bounds_one_buffer_and_one_turn() {
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
fn an_interrupt_that_is_pending_at_the_save_is_raised_at_the_resume() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 8, true)]);
    let driver = driver.move_to(Rng);
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn a_device_that_breaks_again_and_again_is_reported_once() {
    let mut driver = rng();
    let mut break_it = || {
        driver.publish(0, RING_SIZE);
        driver.notify(0);
        driver.run();
        assert!(driver.needs_reset());
        driver.device().fault.clone()
    };
    let first = break_it();
    assert!(first.is_some());
    assert_eq!(break_it(), first);
}

#[test]
fn entropy_differs_from_buffer_to_buffer_and_spans_descriptors() {
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
fn a_chain_with_nothing_to_write_comes_back_empty() {
    let mut driver = rng();
    driver.submit(0, &[(DATA, 16, false)]);
    assert_eq!(driver.used(0), Some((0, 0)));
    assert!(!driver.needs_reset());
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
