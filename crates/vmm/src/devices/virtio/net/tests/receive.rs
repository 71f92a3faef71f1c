//! TAP to guest.

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_STATUS};

use super::super::device::F_MRG_RXBUF;
use super::*;
use crate::devices::Device as _;
use crate::devices::virtio::testing::RING_SIZE;

/// A buffer for one whole frame: header, Ethernet header and MTU.
const WHOLE_FRAME: u32 = 12 + 14 + 1500;

fn num_buffers(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[10], bytes[11]])
}

#[test]
fn a_received_frame_has_its_header() {
    let mut guest = Guest::started();
    let head = guest.give(0, 4096);
    guest.wire.send(&wired(&frame([3; 6], 1000))).unwrap();
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), Some((head, 1026)));
    let bytes = guest.received(0, 1026);
    assert_eq!(num_buffers(&bytes), 1);
    assert_eq!(bytes[HEADER..], frame([3; 6], 1000));
    assert_ne!(guest.driver.interrupts(), 0);
}

#[test]
fn a_frame_is_spread_over_mergeable_buffers() {
    let mut guest = Guest::started();
    for slot in 0..20 {
        guest.give(slot, 100);
    }
    guest.wire.send(&wired(&frame([3; 6], 224))).unwrap();
    guest.driver.run();
    let used: Vec<_> = std::iter::from_fn(|| guest.driver.used(RXQ)).collect();
    assert_eq!(used, [(0, 100), (1, 100), (2, 50)]);
    assert_eq!(num_buffers(&guest.received(0, 100)), 3);
    let bytes = [
        guest.received(0, 100),
        guest.received(1, 100),
        guest.received(2, 50),
    ]
    .concat();
    assert_eq!(bytes[HEADER..], frame([3; 6], 224));
}

#[test]
fn frames_wait_for_buffers() {
    let mut guest = Guest::started();
    for len in 1..=3 {
        guest.wire.send(&wired(&frame([3; 6], len))).unwrap();
    }
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), None);
    for slot in 0..3 {
        guest.give(slot, 2048);
    }
    let lens: Vec<_> = std::iter::from_fn(|| guest.driver.used(RXQ))
        .map(|(_, len)| len)
        .collect();
    assert_eq!(lens, [27, 28, 29]);
}

#[test]
fn a_frame_larger_than_the_buffer_is_dropped() {
    let mut guest = Guest::started_with(!F_MRG_RXBUF);
    guest.give(0, WHOLE_FRAME);
    guest.give(1, WHOLE_FRAME);
    guest.wire.send(&wired(&frame([3; 6], 1501))).unwrap();
    guest.wire.send(&wired(&frame([3; 6], 100))).unwrap();
    guest.driver.run();
    // The next frame uses the buffer.
    assert_eq!(guest.driver.used(RXQ), Some((0, 126)));
    assert_eq!(num_buffers(&guest.received(0, 126)), 1);
    assert_eq!(guest.driver.used(RXQ), None);
}

#[test]
fn a_frame_of_the_mtu_fits_the_minimum_buffer() {
    let mut guest = Guest::started_with(!F_MRG_RXBUF);
    guest.give(0, WHOLE_FRAME);
    guest.wire.send(&wired(&frame([3; 6], 1500))).unwrap();
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), Some((0, WHOLE_FRAME)));
}

#[test]
fn a_buffer_too_small_for_a_header_needs_a_reset() {
    let mut guest = Guest::started();
    guest.give(0, HEADER as u32 - 1);
    assert!(guest.driver.needs_reset());
}

#[test]
fn a_buffer_too_small_without_mrg_rxbuf_needs_a_reset() {
    let mut guest = Guest::started_with(!F_MRG_RXBUF);
    guest.give(0, WHOLE_FRAME - 1);
    assert!(guest.driver.needs_reset());
}

#[test]
fn a_readable_receive_buffer_needs_a_reset() {
    let mut guest = Guest::started();
    guest
        .driver
        .submit(RXQ, &[(RX_AREA, 16, false), (RX_AREA, 4096, true)]);
    assert!(guest.driver.needs_reset());
}

/// Makes one descriptor of `len` bytes available a hundred times as often as the queue has descriptors.
fn flood(len: u32) -> Guest {
    const WRITE: u16 = 2;
    let mut guest = Guest::started();
    guest
        .driver
        .write_descriptor(RXQ, 0, (RX_AREA, len, WRITE, 0));
    for _ in 0..100 {
        for _ in 0..RING_SIZE {
            guest.driver.publish(RXQ, 0);
        }
        guest.driver.notify(RXQ);
        guest.driver.run();
    }
    guest
}

#[test]
fn held_rx_buffers_are_bounded_by_the_queue() {
    // Neither empty buffers nor one header per descriptor add up to a frame.
    for len in [0, HEADER as u32] {
        let guest = flood(len);
        let device = guest.driver.device();
        assert!(device.device().rx_ready.len() <= usize::from(RING_SIZE));
        drop(device);
        assert!(guest.driver.needs_reset());
    }
}

#[test]
fn a_datagram_shorter_than_a_header_is_dropped() {
    let mut guest = Guest::started();
    guest.give(0, 4096);
    guest.wire.send(&[1, 2, 3]).unwrap();
    guest.wire.send(&wired(&frame([3; 6], 1))).unwrap();
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), Some((0, 27)));
}

#[test]
fn many_frames_pass_in_order() {
    let mut guest = Guest::started();
    for slot in 0..32 {
        guest.give(slot, 2048);
    }
    for number in 0..2000u32 {
        let mut bytes = wired(&frame([3; 6], 100));
        bytes[30..34].copy_from_slice(&number.to_le_bytes());
        guest.wire.send(&bytes).unwrap();
        guest.driver.run();
        assert_eq!(guest.driver.used(RXQ).unwrap().1, 126);
        let at = u64::from(number % 32);
        assert_eq!(guest.received(at, 34)[30..], number.to_le_bytes());
        guest.give(at, 2048);
    }
}

#[test]
fn a_reset_drops_the_popped_buffers() {
    let mut guest = Guest::started();
    guest.give(0, 100);
    guest.driver.write(VIRTIO_MMIO_STATUS, 0);
    guest.wire.send(&wired(&frame([3; 6], 10))).unwrap();
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), None);
    assert_eq!(guest.driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn frames_from_before_the_resume_are_dropped() {
    let mut guest = Guest::started();
    for slot in 0..4 {
        guest.give(slot, 2048);
    }
    guest.driver.run();
    guest.driver.device().pause();
    for length in [100, 150] {
        guest.wire.send(&wired(&frame([3; 6], length))).unwrap();
    }
    guest.driver.run();
    guest.driver.device().resume();
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), None);

    guest.wire.send(&wired(&frame([3; 6], 200))).unwrap();
    guest.driver.run();
    assert_eq!(
        guest.driver.used(RXQ).map(|(_, len)| len),
        Some(12 + 14 + 200)
    );
}
