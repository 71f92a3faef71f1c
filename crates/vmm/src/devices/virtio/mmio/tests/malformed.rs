//! Malformed queues stop the device.

use super::*;

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

/// Makes a chain of this one descriptor available and expects DEVICE_NEEDS_RESET with the cause `what`.
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
    // A reset clears DEVICE_NEEDS_RESET.
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);
}

#[test]
fn a_chain_that_loops_needs_a_reset() {
    expect_fault((DATA, 8, 3, 0), "has no valid end");
}

#[test]
fn a_chain_that_leaves_the_table_needs_a_reset() {
    expect_fault((DATA, 8, 3, 999), "has no valid end");
}

#[test]
fn a_buffer_outside_memory_needs_a_reset() {
    expect_fault((MEMORY_SIZE as u64 - 4, 8, 2, 0), "outside guest memory");
    expect_fault((u64::MAX - 4, 8, 2, 0), "outside guest memory");
    expect_fault((DATA, u32::MAX, 2, 0), "outside guest memory");
}

#[test]
fn an_indirect_table_outside_memory_needs_a_reset() {
    expect_fault((u64::MAX - 64, 64, INDIRECT, 0), "has no valid end");
    expect_fault((DATA, 17, INDIRECT, 0), "has no valid end");
    expect_fault((DATA, 0, INDIRECT, 0), "has no valid end");
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
fn readable_after_writable_needs_a_reset() {
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
fn only_the_first_fault_of_a_device_is_kept() {
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
